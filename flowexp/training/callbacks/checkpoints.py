"""Checkpoints: when they are written, what they hold, and how a training continues from one."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.files import write_with_link
from flowexp.runs import RunDirectory, read_checkpoint, write_checkpoint
from flowexp.runs.metrics_file import read_rows
from flowexp.runs.run_directory import config_digest
from flowexp.training.callbacks.divergence import refuse_stored, require_finite_state
from flowexp.training.precision import LossScaling

if TYPE_CHECKING:
    from flowexp.training.module import FlowModule

__all__ = ["Checkpoints"]

_LOG = logging.getLogger(__name__)


class Checkpoints(Checkpoint):
    """Continues from the run's latest checkpoint, and writes one every ``trainer.checkpoint_kimg``.

    A checkpoint holds tensors and plain builtins: counters, config, network, averages, what an
    objective has learned, optimizer, the window of the next row, and the states of callbacks that
    have one. Random states are not among it, since every draw is a function of seed and step.

    A snapshot, one every ``trainer.snapshot_kimg``, holds counters and averages only; it lies in a
    folder of its own, and nothing removes it.
    """

    def __init__(self) -> None:
        self._saved_step: int | None = None

    def finished(self, module: "FlowModule") -> bool:
        """Whether the latest checkpoint is at the end already; then its weights are loaded."""
        checkpoint = module.run.latest_checkpoint()
        if checkpoint is None:
            return False
        content = read_checkpoint(checkpoint, mmap=True, key="dirs.run")
        if content["step"] < module.settings.total_steps:
            return False
        module.network.load_state_dict(content["network"])
        refuse_stored(module, checkpoint)
        module.step = module.start_step = content["step"]
        for row in read_rows(module.run.metrics_file):
            module.records.row = row
        return True

    def on_fit_start(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        """Continue from the latest checkpoint, if there is one."""
        if trainer.is_global_zero:
            _announce_snapshots(pl_module)
        checkpoint = _agree_on_start(trainer, pl_module)
        if checkpoint is None:
            return
        content = read_checkpoint(checkpoint, key="dirs.run")
        pl_module.network.load_state_dict(content["network"])
        if pl_module.objective is not None and "objective" in content:
            pl_module.objective.load_state_dict(content["objective"])
        pl_module.optimizer.load_state_dict(content["optimizer"])
        pl_module.averages.load(content["ema"])
        pl_module.records.window.load(content["window"], device=pl_module.device)
        if isinstance(trainer.precision_plugin, LossScaling):
            trainer.precision_plugin.scaler.load_state_dict(content["scaler"])
        states = content.get("callbacks", {})
        for callback in pl_module.parts.callbacks.values():
            if callback.state_key in states:
                callback.load_state_dict(states[callback.state_key])
        refuse_stored(pl_module, checkpoint)
        step = content["step"]
        pl_module.step = pl_module.start_step = self._saved_step = step
        _count_from(trainer, step)
        _LOG.info("continuing at step %d (%.3f kimg) from %s", step, pl_module.kimg, checkpoint)

    def on_train_batch_end(self, trainer: Trainer, pl_module: "FlowModule", *_: object) -> None:
        """Write a snapshot or a checkpoint when it is time; the last checkpoint is for the end."""
        settings, step = pl_module.settings, pl_module.step
        _write_snapshot(trainer, pl_module)
        every = settings.checkpoint_steps
        if every is not None and step % every == 0 and step < settings.total_steps:
            self.save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        """Write the last checkpoint, before anything else that happens at the end."""
        self.save(trainer, pl_module)
        trainer.strategy.barrier()
        if pl_module.step < pl_module.settings.total_steps:
            _LOG.warning(
                "a callback stopped the training at step %d of %d. It continues with %s",
                pl_module.step,
                pl_module.settings.total_steps,
                pl_module.run.continued_by,
            )

    def save(self, trainer: Trainer, module: "FlowModule") -> None:
        """Write a checkpoint of this moment, unless it is there already; call on every process.

        A snapshot that is due comes first, as a training that continues from here does not meet
        this moment again.

        Raises:
            NonFiniteLossError: The loss is nan or infinite.
            NonFiniteWeightsError: What would be written is.
        """
        _write_snapshot(trainer, module)
        records, run = module.records, module.run
        records.require_finite(module, records.window.means())
        require_finite_state(trainer, module)
        if not trainer.is_global_zero or self._saved_step == module.step:
            return
        records.flush(durable=True)
        newest = run.checkpoints / f"step-{module.step:09d}.ckpt"
        write_checkpoint(newest, _state(trainer, module))
        write_with_link(run.checkpoints / "last.ckpt", target=newest)
        keep = module.settings.keep_checkpoints
        if keep is not None:
            numbered = run.numbered_checkpoints()
            for old in numbered[: len(numbered) - keep]:
                old.unlink(missing_ok=True)
        self._saved_step = module.step


def _write_snapshot(trainer: Trainer, module: "FlowModule") -> None:
    """Write the averages if it is time and they are not there; raw weights where none is averaged.

    A training that is resumed before a snapshot would write the same content again.
    """
    settings, step = module.settings, module.step
    file = module.run.snapshots / f"snapshot-{step:09d}.ckpt"
    due = settings.snapshots_after(step) > settings.snapshots_after(step - 1)
    if not due or not trainer.is_global_zero or file.exists():
        return
    averages, network = module.averages.state(), module.network.state_dict()
    averaged = set().union(*averages.values())
    content = {
        "step": module.step,
        "images": module.images,
        "seed": module.seed,
        "network": {name: value for name, value in network.items() if name not in averaged},
        "ema": averages,
    }
    write_checkpoint(file, content)


def _announce_snapshots(module: "FlowModule") -> None:
    """Log how much of the disk the snapshots will take."""
    settings = module.settings
    count = settings.snapshots_after(settings.total_steps)
    if count:
        weights = sum(p.numel() * p.element_size() for p in module.network.parameters())
        size = count * weights * max(1, len(module.parts.emas)) / 1e9
        _LOG.info("keeping %d snapshots in %s, %.2g GB in all", count, module.run.snapshots, size)


def _state(trainer: Trainer, module: "FlowModule") -> dict[str, Any]:
    scaling = trainer.precision_plugin
    learned = module.objective
    return {
        "step": module.step,
        "images": module.images,
        "seed": module.seed,
        "config": module.config,
        "network": module.network.state_dict(),
        **({} if learned is None else {"objective": learned.state_dict()}),
        "ema": module.averages.state(),
        "optimizer": module.optimizer.state_dict(),
        "window": module.records.window.state(),
        "scaler": scaling.scaler.state_dict() if isinstance(scaling, LossScaling) else None,
        "callbacks": _states(module.parts.callbacks.values()),
    }


def _states(callbacks: Iterable[Callback]) -> dict[str, Any]:
    """The states of callbacks that have one, but for those that a checkpoint cannot hold."""
    states = {callback.state_key: callback.state_dict() for callback in callbacks}
    for key, state in states.items():
        if not _is_plain(state):
            _LOG.warning("the state of %s is not saved: it holds more than plain values.", key)
    return {key: state for key, state in states.items() if state and _is_plain(state)}


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return type(value) is dict and all(map(_is_plain, [*value.keys(), *value.values()]))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | Tensor)


def _agree_on_start(trainer: Trainer, module: "FlowModule") -> Path | None:
    """The first process's checkpoint, after a check that all processes do the same.

    Raises:
        UsageError: This process was started with another configuration than the first.
    """
    own = config_digest(module.config), module.run.path, module.run.latest_checkpoint()
    digest, path, checkpoint = trainer.strategy.broadcast(own)
    if digest != own[0]:
        raise UsageError(
            f"process {module.global_rank} was started with another configuration than process 0.",
            key="trainer.strategy",
            remedy="Start all processes with one torchrun or srun command.",
        )
    module.run = RunDirectory(path)
    return checkpoint


def _count_from(trainer: Trainer, step: int) -> None:
    """Let ``trainer.global_step``, which callbacks and loggers read, continue as well.

    Lightning restores these counters from checkpoints of its own format only.
    """
    loop = trainer.fit_loop.epoch_loop
    total = loop.manual_optimization.optim_step_progress.total
    total.ready = total.completed = loop._batches_that_stepped = step
