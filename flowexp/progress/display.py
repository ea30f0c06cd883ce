"""Displays of running tasks: bars in a terminal, an occasional line elsewhere.

Both are drawn at fixed times, by a separate thread, on stderr; stdout is for results.
"""

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from flowexp.processes import is_first_process
from flowexp.progress.task import Task, telling

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

__all__ = ["Bars", "Display", "Lines", "shown"]

_TICK_SECONDS = 0.5
_PATIENCE_SECONDS = 5.0
_BAR_WIDTH = 16

Clock = Callable[[], float]


class Display(ABC):
    """The running tasks, outermost first, and a thread that draws them.

    Args:
        clock: Time in seconds.
        ticking: Whether a thread calls :meth:`tick`; otherwise the caller does.
    """

    def __init__(self, *, clock: Clock = time.monotonic, ticking: bool = True) -> None:
        self.clock = clock
        self.ticking = ticking
        self.tasks: list[Task] = []
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, task: Task) -> None:
        """Show a task; the first one starts the thread."""
        task.started = self.clock()
        with self._lock:
            self.tasks.append(task)
        if self.ticking and self._thread is None:
            self._thread = threading.Thread(target=self._tick_on, daemon=True, name="progress")
            self._thread.start()

    def end(self, task: Task) -> None:
        """Stop showing a task."""
        with self._lock:
            if task in self.tasks:
                self.tasks.remove(task)
            if not self.tasks:
                self.clear()

    def close(self) -> None:
        """End the thread and leave a clean terminal."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self.tasks.clear()
            self.clear()

    def tick(self) -> None:
        """Draw if it is time."""
        with self._lock:
            if self.tasks:
                self.draw()

    @abstractmethod
    def draw(self) -> None:
        """Draw the tasks, of which there is at least one, if it is time."""

    @abstractmethod
    def clear(self) -> None:
        """No task is running any more."""

    def _tick_on(self) -> None:
        # A closed or full stream must not end the computation.
        with suppress(OSError, ValueError):
            while not self._stop.wait(_TICK_SECONDS):
                self.tick()


class Lines(Display):
    """For pipes, logs and parallel jobs: a line after five seconds, then one a minute.

    Args:
        label: Before every line, for example the name of a job among others; may be empty.
        clock: As for :class:`Display`, as ``ticking`` is.
    """

    def __init__(
        self, label: str = "", *, clock: Clock = time.monotonic, ticking: bool = True
    ) -> None:
        super().__init__(clock=clock, ticking=ticking)
        self.label = label
        self._printed: float | None = None

    def draw(self) -> None:
        """A line, five seconds after the outermost task began and every ``line_seconds`` of it."""
        now, outermost = self.clock(), self.tasks[0]
        since, wait = outermost.started, _PATIENCE_SECONDS
        if self._printed is not None:
            since, wait = self._printed, outermost.line_seconds
        if now - since < wait:
            return
        self._printed = now
        text = "; ".join(task.described(now) for task in self.tasks)
        print(f"{self.label}{': ' if self.label else ''}{text}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        self._printed = None


class Bars(Display):
    """For a terminal: a bar per task; the bars vanish when no task is running."""

    _live: "Live | None" = None

    def draw(self) -> None:
        """All tasks, from half a second after the outermost began."""
        if self._live is None:
            if self.clock() - self.tasks[0].started < _TICK_SECONDS:
                return
            self._live = self._opened()
        self._live.update(self.rendered(), refresh=True)

    def clear(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def rendered(self) -> "RenderableType":
        """One line for each task."""
        from rich.progress_bar import ProgressBar
        from rich.table import Column, Table
        from rich.text import Text

        now = self.clock()
        grid = Table.grid(
            Column(width=_BAR_WIDTH), Column(no_wrap=True, overflow="ellipsis"), padding=(0, 1)
        )
        for task in self.tasks:
            share = task.share
            bar = ProgressBar(
                total=1.0, completed=share or 0.0, width=_BAR_WIDTH, pulse=share is None
            )
            grid.add_row(bar, Text(task.described(now)))
        return grid

    def _opened(self) -> "Live":
        from rich.console import Console
        from rich.live import Live

        live = Live(
            console=Console(file=sys.stderr),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        )
        live.start()
        return live


@contextmanager
def shown(*, label: str = "") -> Iterator[None]:
    """Show the progress of the computations in this context on stderr, in the first process only.

    Args:
        label: Name of a job that runs beside others: it gets lines, which can be told apart, even
            in a terminal, where the bars of several would overwrite each other.
    """
    if not is_first_process():
        with telling(None):
            yield
        return
    display = Lines(label) if label or not _draws_bars() else Bars()
    try:
        with telling(display):
            yield
    finally:
        display.close()


def _draws_bars() -> bool:
    """Whether stderr is a terminal that can move its cursor."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return terminal and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
