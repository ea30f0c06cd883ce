"""How far a training is: a bar in a terminal, a line now and then elsewhere."""

import time
from typing import TYPE_CHECKING

from pytorch_lightning import Trainer

from flowexp.training.callbacks.closing import ClosingCallback

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from flowexp.training.module import FlowModule

__all__ = ["Progress"]

_LEAST_SECONDS = 0.5


class Progress(ClosingCallback):
    """Images, loss, speed and remaining time; drawn by the clock, never by the step.

    Args:
        refresh_seconds: Seconds between two drawings of the bar in a terminal, >= 0.5.
        line_seconds: Seconds between two lines where there is no terminal.

    Raises:
        ValueError: A number is too small.
    """

    def __init__(self, *, refresh_seconds: float = 0.5, line_seconds: float = 30.0) -> None:
        for name, value in (("refresh_seconds", refresh_seconds), ("line_seconds", line_seconds)):
            if value < _LEAST_SECONDS:
                raise ValueError(f"{name} is {value}; allowed: numbers >= {_LEAST_SECONDS}")
        self.refresh_seconds = refresh_seconds
        self.line_seconds = line_seconds
        self._bar: Bar | None = None
        self._interval = line_seconds
        self._due = float("inf")

    def on_train_start(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        """Open the bar, where there is a terminal."""
        if not trainer.is_global_zero:
            return
        from rich.console import Console

        console = Console()
        self._interval = self.refresh_seconds if console.is_terminal else self.line_seconds
        self._due = time.monotonic() + self._interval
        if console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (BarColumn(bar_width=30), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=console, auto_refresh=False)
            self._bar.start()
            self._bar.add_task("", total=pl_module.settings.total_steps)
            self._draw(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: "FlowModule", *_: object) -> None:
        if time.monotonic() >= self._due:
            self._draw(pl_module)
            self._due = time.monotonic() + self._interval

    def on_train_end(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        if trainer.is_global_zero:
            self._draw(pl_module)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, module: "FlowModule") -> None:
        text = self.text(module)
        if self._bar is None:
            print(text, flush=True)
            return
        self._bar.update(self._bar.task_ids[0], completed=module.step, description=text)
        self._bar.refresh()

    def text(self, module: "FlowModule") -> str:
        """One line: kimg, loss, images per second, remaining time."""
        settings, loss = module.settings, module.records.row.get("train/loss")
        speed = module.images_per_second
        left = (settings.total_steps - module.step) * settings.batch_size
        parts = [
            f"{module.kimg:.1f}/{settings.max_kimg:g} kimg",
            "loss -" if loss is None else f"loss {loss:.4g}",
            f"{speed:.0f} img/s",
            f"{_duration(left / speed)} left" if speed > 0 else "",
        ]
        return "  ".join(part for part in parts if part)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
