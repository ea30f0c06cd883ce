"""How far a training is: a bar in a terminal, a line now and then elsewhere."""

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytorch_lightning import Trainer

from flowexp.progress import Task, listening, shown
from flowexp.progress.task import LINE_SECONDS, duration, running
from flowexp.training.callbacks.closing import ClosingCallback

if TYPE_CHECKING:
    from flowexp.training.module import FlowModule

__all__ = ["Progress"]

_LEAST_SECONDS = 0.5


class Progress(ClosingCallback):
    """Images, loss, speed and remaining time; updated by the clock, never by the step.

    Args:
        refresh_seconds: Seconds between two updates of the bar in a terminal, >= 0.5.
        line_seconds: Seconds between two lines without a terminal.

    Raises:
        ValueError: A number is too small.
    """

    def __init__(self, *, refresh_seconds: float = 0.5, line_seconds: float = LINE_SECONDS) -> None:
        for name, value in (("refresh_seconds", refresh_seconds), ("line_seconds", line_seconds)):
            if value < _LEAST_SECONDS:
                raise ValueError(f"{name} is {value}; allowed: numbers >= {_LEAST_SECONDS}")
        self.refresh_seconds = refresh_seconds
        self.line_seconds = line_seconds
        self._open = ExitStack()
        self._task: Task | None = None
        self._text = ""
        self._due = float("inf")

    def on_train_start(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        """Begin to report; a training outside the command line shows it itself."""
        if not trainer.is_global_zero:
            return
        if not listening():
            self._open.enter_context(shown())
        self._task = Task(
            "",
            total=pl_module.settings.total_steps,
            text=lambda: self._text,
            line_seconds=self.line_seconds,
        )
        self._update(pl_module)
        self._open.enter_context(running(self._task))

    def on_train_batch_end(self, trainer: Trainer, pl_module: "FlowModule", *_: object) -> None:
        if time.monotonic() >= self._due:
            self._update(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        if self._task is not None:
            self._update(pl_module)

    def close(self) -> None:
        self._open.close()
        self._task, self._due = None, float("inf")

    def _update(self, module: "FlowModule") -> None:
        assert self._task is not None
        self._text = self.text(module)
        self._task.reach(module.step)
        self._due = time.monotonic() + self.refresh_seconds

    def text(self, module: "FlowModule") -> str:
        """One line: kimg, loss, images per second, remaining time."""
        settings, loss = module.settings, module.records.row.get("train/loss")
        done = f"{module.kimg:.1f}/{settings.max_kimg:g} kimg"
        if module.step == module.start_step and settings.compile:
            return f"{done}  compiling the network for the first step"
        speed = module.images_per_second
        left = (settings.total_steps - module.step) * settings.batch_size
        parts = [
            done,
            "loss -" if loss is None else f"loss {loss:.4g}",
            f"{speed:.0f} img/s",
            f"{duration(left / speed)} left" if speed > 0 else "",
        ]
        return "  ".join(part for part in parts if part)
