"""The state of a running training, and what happens around its steps."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flowexp.augmentations import Augmentation
from flowexp.couplings import Coupling
from flowexp.data import Dataset
from flowexp.errors import UsageError
from flowexp.guidance import Guidance
from flowexp.models import FlowModel
from flowexp.objectives import Objective
from flowexp.runs import RunDirectory, read_checkpoint, write_checkpoint
from flowexp.samplers import Sampler
from flowexp.tasks import Task
from flowexp.timesteps import TimestepDistribution
from flowexp.training.callbacks.base import Callback
from flowexp.training.checkpointing import keep_newest, snapshot
from flowexp.training.ema import EMA, EMAWeights
from flowexp.training.interruption import Interruption, TrainingInterrupted
from flowexp.training.log_window import LogWindow
from flowexp.training.loggers.base import Logger
from flowexp.training.lr_schedules import LRSchedule
from flowexp.training.metrics_file import MetricsFile, read_rows
from flowexp.training.settings import TrainerSettings
from flowexp.training.update import Update
from flowexp.tree import plain

__all__ = ["NonFiniteLossError", "Parts", "Session"]

_LOG = logging.getLogger(__name__)


class NonFiniteLossError(RuntimeError):
    """The loss became nan or infinite."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is trained and how; see :func:`flowexp.training.fit`."""

    model: FlowModel
    dataset: Dataset
    coupling: Coupling
    timestep: TimestepDistribution
    objective: Objective
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    lr_schedule: LRSchedule
    emas: Mapping[str, EMA]
    augmentation: Augmentation | None = None
    sampler: Sampler | None = None
    guidance: Guidance | None = None
    task: Task | None = None
    callbacks: Mapping[str, Callback] = field(default_factory=dict)
    loggers: Mapping[str, Logger] = field(default_factory=dict)


class Session:
    """A training between its start and its end: counters, optimizer, averages, records.

    Args:
        parts: What is trained and how.
        settings: Length, batch and numerics.
        run: Where to.
        seed: The run's seed.
        config: The resolved configuration in plain builtins.
    """

    update: Update
    averages: EMAWeights
    optimizer: Optimizer
    device: torch.device

    def __init__(
        self,
        parts: Parts,
        *,
        settings: TrainerSettings,
        run: RunDirectory,
        seed: int,
        config: Mapping[str, Any],
    ) -> None:
        self.parts = parts
        self.settings = settings
        self.run = run
        self.seed = seed
        self.config = plain(config)
        self.network: nn.Module = parts.model.network
        self.total_steps = settings.total_steps
        self.step = 0
        self.start_step = 0
        self.rank = 0
        self.world_size = 1
        self.window = LogWindow()
        self.interruption = Interruption()
        self.row: dict[str, Any] = {}
        self.started = time.perf_counter()
        self._logged: tuple[float, int] = (self.started, 0)
        self._metrics: MetricsFile | None = None
        self._saved_step: int | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    @property
    def images(self) -> int:
        """Images seen so far, over all processes."""
        return self.step * self.settings.batch_size

    @property
    def kimg(self) -> float:
        """Thousands of images seen so far."""
        return self.images / 1000.0

    @property
    def seconds(self) -> float:
        """Wall time since this process began to train."""
        return time.perf_counter() - self.started

    @property
    def images_per_second(self) -> float:
        """Mean speed since this process began to train."""
        return (self.step - self.start_step) * self.settings.batch_size / max(self.seconds, 1e-9)

    def place(self, device: torch.device, *, rank: int, world_size: int) -> None:
        """Tell the session where it runs.

        Raises:
            UsageError: The batch cannot be shared equally.
        """
        self.device, self.rank, self.world_size = device, rank, world_size
        if self.settings.batch_size % world_size:
            raise UsageError(
                f"{self.settings.batch_size} images cannot be shared equally by {world_size} "
                "processes.",
                key="trainer.batch_size",
                remedy=f"Choose a multiple of {world_size}.",
            )

    def is_complete(self) -> bool:
        """Whether the latest checkpoint is at the end already; then its weights are loaded."""
        checkpoint = self.run.latest_checkpoint()
        if checkpoint is None:
            return False
        content = read_checkpoint(checkpoint, mmap=True, key="dirs.run")
        if content["step"] < self.total_steps:
            return False
        self.network.load_state_dict(content["network"])
        self.step = self.start_step = content["step"]
        self.row = {}
        for row in read_rows(self.run.metrics_file):
            self.row = row
        return True

    def restore(self, checkpoint: Path | None) -> None:
        """Continue from a checkpoint, or begin; needs network, optimizer and averages in place."""
        if checkpoint is not None:
            content = read_checkpoint(checkpoint, key="dirs.run")
            self.network.load_state_dict(content["network"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.averages.load(content["ema"])
            self.window.load(content["window"], device=self.device)
            if self.update.scaler is not None:
                self.update.scaler.load_state_dict(content["scaler"])
            self.step = content["step"]
            _LOG.info("continuing at step %d (%.3f kimg) from %s", self.step, self.kimg, checkpoint)
        self.start_step = self.step
        self._saved_step = self.step if checkpoint is not None else None

    def begin(self) -> None:
        """Open the records and tell loggers and callbacks."""
        self.started = time.perf_counter()
        self._logged = (self.started, self.step)
        if not self.is_first:
            return
        self._metrics = MetricsFile(self.run.metrics_file, step=self.step)
        self.row = dict(self._metrics.last_row or {})
        for logger in self.parts.loggers.values():
            logger.start(self.run, config=self.config, step=self.step)
        for callback in self.parts.callbacks.values():
            callback.on_start(self)

    def after_step(self, scalars: dict[str, Tensor]) -> None:
        """Count a step; log, save and call back when it is time."""
        self.step += 1
        self.window.add(scalars)
        at_row = self.step % self.settings.log_every == 0
        if at_row:
            self._log(partial=False)
        if self.is_first:
            for callback in self.parts.callbacks.values():
                callback.on_step(self)
        every = self.settings.checkpoint_steps
        if every is not None and self.step % every == 0 and self.step < self.total_steps:
            self.save()
        if self.interruption.received is not None or self.world_size > 1:
            self._stop_if_asked(at_row)

    def finish(self) -> None:
        """Last checkpoint, last row, last calls."""
        self.save()
        self._log(partial=True)
        if self._metrics is not None:
            self._metrics.flush()
        if self.is_first:
            for callback in self.parts.callbacks.values():
                callback.on_end(self)

    def close(self, *, failed: bool) -> None:
        """Close records, loggers and callbacks, however the training ended."""
        self.interruption.restore()
        if self._metrics is None:
            return
        self._metrics.close()
        for callback in self.parts.callbacks.values():
            callback.close()
        for logger in self.parts.loggers.values():
            logger.finish(failed=failed)

    @contextmanager
    def evaluating(self, ema: str | None) -> Iterator[None]:
        """The network in evaluation mode with the weights of an average while the context lasts.

        Args:
            ema: Name of the average, or None for the raw weights.
        """
        self.network.eval()
        try:
            with nullcontext() if ema is None else self.averages.applied(ema):
                yield
        finally:
            self.network.train()

    def save(self) -> Path | None:
        """Write a checkpoint of this moment (the first process), unless it is there already."""
        self._refuse_non_finite(self.window.means())
        if not self.is_first or self._saved_step == self.step:
            return self.run.latest_checkpoint()
        if self._metrics is not None:
            self._metrics.flush(durable=True)
        numbered = self.run.checkpoints / f"step-{self.step:09d}.ckpt"
        write_checkpoint(numbered, snapshot(self))
        keep_newest(self.run, newest=numbered, keep=self.settings.keep_checkpoints)
        self._saved_step = self.step
        return self.run.latest_checkpoint()

    def _log(self, *, partial: bool) -> None:
        """Record the window's means as a row.

        A partial row closes a training whose length is no multiple of the logging interval; the
        window stays, so that a longer training continues as if the row had not been written.
        """
        means = self.window.means()
        if not means:
            return
        self._refuse_non_finite(means)
        now = time.perf_counter()
        steps, seconds = self.step - self._logged[1], now - self._logged[0]
        row: dict[str, Any] = {"step": self.step, "kimg": self.kimg}
        row |= {f"train/{name}": value for name, value in means.items()}
        row["train/learning_rate"] = self.update.learning_rate
        row["time/seconds"] = round(self.seconds, 6)
        row["time/images_per_second"] = steps * self.settings.batch_size / max(seconds, 1e-9)
        if partial:
            row["partial"] = True
        else:
            self.window.empty()
        self.row, self._logged = row, (now, self.step)
        if self._metrics is None:
            return
        self._metrics.append(row)
        for logger in self.parts.loggers.values():
            logger.log(row)
        for callback in self.parts.callbacks.values():
            callback.on_row(self, row)

    def _refuse_non_finite(self, means: Mapping[str, float]) -> None:
        if self.settings.nan_to_num or math.isfinite(means.get("loss", 0.0)):
            return
        first = self.step - self.window.count + 1
        raise NonFiniteLossError(
            f"the loss is {means['loss']} between steps {first} and {self.step}. The last good "
            f"checkpoint is {self.run.latest_checkpoint() or 'none'}. Lower optimizer.lr, set "
            "trainer.grad_clip=1, or let trainer.nan_to_num=true replace non-finite gradients."
        )

    def _stop_if_asked(self, at_row: bool) -> None:
        """Stop after this step when a signal asked for it; processes agree where they log."""
        if self.world_size > 1 and not (at_row and self.interruption.agreed(self.device)):
            return
        self.save()
        received = self.interruption.received
        raise TrainingInterrupted(
            f"stopped by {received.name if received else 'another process'} at step {self.step} "
            f"({self.kimg:g} kimg); the same command continues from {self.run.latest_checkpoint()}."
        )
