"""How far a training is: a bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowexp.training.callbacks.base import Callback

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from flowexp.training.session import Session

__all__ = ["Progress"]

_LEAST_SECONDS = 0.5


class Progress(Callback):
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
        self._due = 0.0
        self._latest: Mapping[str, Any] = {}

    def on_start(self, session: "Session") -> None:
        """Open the bar, where there is a terminal."""
        from rich.console import Console

        console = Console()
        self._latest = session.row
        self._interval = self.refresh_seconds if console.is_terminal else self.line_seconds
        self._due = time.monotonic() + self._interval
        if console.is_terminal:
            self._bar = _bar(console)
            self._bar.start()
            self._bar.add_task("", total=session.total_steps)
            self._draw(session)

    def on_step(self, session: "Session") -> None:
        """Draw when it is time."""
        if time.monotonic() >= self._due:
            self._draw(session)
            self._due = time.monotonic() + self._interval

    def on_row(self, session: "Session", row: Mapping[str, Any]) -> None:
        """Keep the loss to show."""
        self._latest = row

    def on_end(self, session: "Session") -> None:
        """Show the final state."""
        self._draw(session)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, session: "Session") -> None:
        if self._bar is None:
            print(self.text(session), flush=True)
            return
        text = self.text(session)
        self._bar.update(self._bar.task_ids[0], completed=session.step, description=text)
        self._bar.refresh()

    def text(self, session: "Session") -> str:
        """One line: kimg, loss, images per second, remaining time."""
        loss = self._latest.get("train/loss")
        speed = session.images_per_second
        left = (session.total_steps - session.step) * session.settings.batch_size
        parts = [
            f"{session.kimg:.1f}/{session.settings.max_kimg:g} kimg",
            "loss -" if loss is None else f"loss {loss:.4g}",
            f"{speed:.0f} img/s",
            f"{_duration(left / speed)} left" if speed > 0 else "",
        ]
        return "  ".join(part for part in parts if part)


def _bar(console: Any) -> "Bar":  # noqa: ANN401 -- rich is imported where it is used
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(bar_width=30), TextColumn("{task.description}"))
    return Bar(*columns, console=console, auto_refresh=False)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
