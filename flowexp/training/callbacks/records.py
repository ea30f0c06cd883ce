"""What a training measured: rows in a file, in the loggers and where callbacks look for metrics."""

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypedDict

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from flowexp.runs.metrics_file import MetricsFile
from flowexp.training.callbacks.closing import ClosingCallback
from flowexp.training.callbacks.divergence import last_good
from flowexp.training.loggers import RunLogger
from flowexp.training.system_facts import memory_used, system_facts

if TYPE_CHECKING:
    from flowexp.training.module import FlowModule

__all__ = ["LogWindow", "NonFiniteLossError", "Records"]


class NonFiniteLossError(RuntimeError):
    """The loss became nan or infinite."""


class WindowState(TypedDict):
    """A window as a checkpoint holds it."""

    count: int
    sums: dict[str, Tensor]
    noted: dict[str, float]


class LogWindow:
    """Means of named scalars over the steps since the window was emptied, and numbers noted once.

    Reading a scalar makes the host wait for the device, so scalars are summed where they are, in
    float64, and read once per row. The window is part of a checkpoint: a resumed run logs the same.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}
        self.noted: dict[str, float] = {}

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Add the detached scalars of one step; every step must bring the same names."""
        if self.count == 0:
            self._sums = {name: value.to(torch.float64) for name, value in scalars.items()}
        elif scalars.keys() != self._sums.keys():
            raise ValueError(f"metrics {sorted(scalars)} in a window of {sorted(self._sums)}")
        else:
            for name, value in scalars.items():
                self._sums[name] = self._sums[name] + value
        self.count += 1

    def means(self) -> dict[str, float]:
        """The means over the window and over all processes; waits for the device."""
        if self.count == 0:
            return {}
        sums = torch.stack(list(self._sums.values()))
        processes = 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            processes = torch.distributed.get_world_size()
            torch.distributed.all_reduce(sums)
        means = (sums / (self.count * processes)).tolist()
        return dict(zip(self._sums, means, strict=True))

    def empty(self) -> None:
        """Start a new window."""
        self.count = 0
        self._sums = {}
        self.noted = {}

    def state(self) -> WindowState:
        """The window in plain containers."""
        return {"count": self.count, "sums": dict(self._sums), "noted": dict(self.noted)}

    def load(self, state: WindowState, *, device: torch.device) -> None:
        """Replace the window by a stored one."""
        self.count = state["count"]
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.noted = dict(state.get("noted", {}))  # not in older checkpoints


class _Clock(NamedTuple):
    """A step, the wall time at its end, and the processor time of this process until then."""

    step: int
    seconds: float
    processor: float

    @classmethod
    def at(cls, step: int) -> Self:
        """The clock now."""
        return cls(step, time.perf_counter(), time.process_time())


class Records(ClosingCallback):
    """Writes a row every ``trainer.log_every`` steps: means over them, learning rate, speed.

    The first process appends it to ``metrics.jsonl`` and hands its numbers to the loggers; on every
    process they are in ``trainer.callback_metrics``, where callbacks that monitor a metric look.

    Attributes:
        window: Sums since the last row; part of a checkpoint.
        row: The last row.
    """

    def __init__(self) -> None:
        self.window = LogWindow()
        self.row: dict[str, Any] = {}
        self._file: MetricsFile | None = None
        self._logged = _Clock.at(0)

    def on_train_start(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        if trainer.is_global_zero:
            self._file = MetricsFile(pl_module.run.metrics_file, step=pl_module.step)
            self.row = dict(self._file.last_row or {})
            facts = system_facts(pl_module.device)
            pl_module.seconds_before = self._file.seconds
            for logger in trainer.loggers:
                if isinstance(logger, RunLogger):
                    logger.start(pl_module.run, config=pl_module.config, step=pl_module.step)
                    logger.log_facts(facts, step=pl_module.step)
                else:
                    logger.log_hyperparams(dict(pl_module.config))
        self._logged = _Clock.at(pl_module.step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: "FlowModule", outputs: dict[str, Tensor], *_: object
    ) -> None:
        """Add a step to the window; write a row when it is time."""
        self.window.add(outputs)
        if pl_module.step % pl_module.settings.log_every == 0:
            self._write(trainer, pl_module)
            self.window.empty()

    def note(self, metrics: Mapping[str, float]) -> None:
        """Add numbers that are measured now and then to the next row; the last ones count."""
        self.window.noted |= metrics

    def on_train_end(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        """Write the rest as a partial row.

        The window stays, so that a longer training continues as if the row had not been written.
        """
        self._write(trainer, pl_module, partial=True)
        self.flush()

    def flush(self, *, durable: bool = False) -> None:
        """Hand the rows to the system, and wait for the disk where they have to be ``durable``."""
        if self._file is not None:
            self._file.flush(durable=durable)

    def require_finite(self, module: "FlowModule", means: Mapping[str, float]) -> None:
        """Stop a training whose loss is not finite, unless its gradients are replaced.

        Raises:
            NonFiniteLossError: With the steps between which it happened.
        """
        if module.settings.nan_to_num or math.isfinite(means.get("loss", 0.0)):
            return
        first = module.step - self.window.count + 1
        raise NonFiniteLossError(
            f"the loss is {means['loss']} between steps {first} and {module.step}. The last good "
            f"checkpoint is {last_good(module) or 'none'}. Lower optimizer.lr, set "
            "trainer.grad_clip=1, or let trainer.nan_to_num=true replace non-finite gradients."
        )

    def _write(self, trainer: Trainer, module: "FlowModule", *, partial: bool = False) -> None:
        means = self.window.means()
        if not means:
            return
        self.require_finite(module, means)
        now, before = _Clock.at(module.step), self._logged
        seconds = max(now.seconds - before.seconds, 1e-9)
        metrics = {"kimg": module.kimg} | {f"train/{name}": mean for name, mean in means.items()}
        metrics["train/learning_rate"] = float(module.optimizer.param_groups[0]["lr"])
        metrics["time/seconds"] = round(module.seconds, 6)
        images = (now.step - before.step) * module.settings.batch_size
        metrics["time/images_per_second"] = images / seconds
        metrics["time/cores"] = (now.processor - before.processor) / seconds
        metrics |= memory_used(module.device) | self.window.noted
        self.row = {"step": module.step, **metrics} | ({"partial": True} if partial else {})
        self._logged = now
        # The property returns Lightning's own dictionary.
        trainer.callback_metrics.update({k: torch.tensor(v) for k, v in metrics.items()})
        if self._file is not None:
            self._file.append(self.row)
            for logger in trainer.loggers:
                known = isinstance(logger, RunLogger) and logger.appends
                if not known or module.step > self._file.dropped_step:
                    logger.log_metrics(metrics, step=module.step)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
