"""Progress reports of computations, and their way to a display."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

__all__ = ["Listener", "Task", "advance", "counted", "listening", "stage", "steps_of", "track"]

_Item = TypeVar("_Item")
LINE_SECONDS = 60.0
"""Seconds between two lines about a task without a terminal."""


class Task:
    """A computation and its progress.

    Args:
        before: Words before the numbers, for example ``sampled``.
        total: Size of the computation, in ``unit``; None = unknown.
        unit: Words after the numbers, for example ``images``.
        text: Gives the whole text instead.
        line_seconds: Seconds between two lines where there is no terminal.

    Attributes:
        done: How much is done.
        found: How much of it was there before, which says nothing about the speed.
        started: When, by the clock of the display.
    """

    def __init__(
        self,
        before: str,
        *,
        total: float | None = None,
        unit: str = "",
        text: Callable[[], str] | None = None,
        line_seconds: float = LINE_SECONDS,
    ) -> None:
        self.before = before
        self.total = total
        self.unit = unit
        self.text = text
        self.line_seconds = line_seconds
        self.done = self.found = self.started = 0.0
        self._within = 0.0
        self._lock = threading.Lock()

    def advance(self, count: float = 1.0, *, made: bool = True) -> None:
        """Count ``count`` more as done; ``made=False`` = they existed before. Thread-safe.

        The total is never exceeded, because the shares of other processes are estimates.
        """
        with self._lock:
            done = self.done + count
            self.done = done if self.total is None else min(done, self.total)
            self.found += 0.0 if made else count
            self._within = 0.0

    def reach(self, done: float) -> None:
        """Count at least ``done`` as done."""
        self.advance(max(0.0, done - self.done))

    def within(self, count: float) -> None:
        """Count about ``count`` of the next items as done, until the next ``advance``."""
        self._within = count

    @property
    def so_far(self) -> float:
        """The amount done, including the items in progress."""
        return self.done + self._within

    @property
    def share(self) -> float | None:
        """The fraction done, 0 to 1; None if the total is unknown."""
        return self.so_far / self.total if self.total else None

    def described(self, now: float) -> str:
        """The state in words: ``sampled 640 of 2,000 images, 42.1/s, 0:32 left``."""
        if self.text is not None:
            return self.text()
        seconds = now - self.started
        if self.total is None:
            count = f" {self.done:,.0f} {self.unit}" if self.done else ""
            return f"{self.before}{count}, {duration(seconds)} so far"
        parts = [f"{self.before} {self.done:,.0f} of {self.total:,.0f} {self.unit}".strip()]
        made = self.so_far - self.found
        if made > 0.0 and seconds > 0.0:
            speed = made / seconds
            parts += [f"{speed:.3g}/s", f"{duration((self.total - self.so_far) / speed)} left"]
        return ", ".join(parts)


class Listener(Protocol):
    """Receives the start and the end of tasks."""

    def begin(self, task: Task) -> None:
        """A task begins, inside those that have not ended; sets ``task.started``."""

    def end(self, task: Task) -> None:
        """A task has ended or failed."""


_LISTENER: ContextVar[Listener | None] = ContextVar("flowexp_progress_listener", default=None)
_TASKS: ContextVar[tuple[Task, ...]] = ContextVar("flowexp_progress_tasks", default=())


def listening() -> bool:
    """Whether there is a listener."""
    return _LISTENER.get() is not None


@contextmanager
def telling(listener: Listener | None) -> Iterator[None]:
    """Make ``listener`` the only listener while the context lasts; None = no listener."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def running(task: Task) -> Iterator[Task]:
    """Run the task while the context lasts."""
    listener, outer = _LISTENER.get(), _TASKS.get()
    _TASKS.set((*outer, task))
    if listener is not None:
        listener.begin(task)
    try:
        yield task
    finally:
        # A generator that is dropped ends its tasks wherever it is collected.
        _TASKS.set(tuple(one for one in _TASKS.get() if one is not task))
        if listener is not None:
            listener.end(task)


@contextmanager
def counted(before: str, *, total: float, unit: str) -> Iterator[Task]:
    """A computation of a known size: ``before DONE of TOTAL unit``; see :class:`Task`."""
    with running(Task(before, total=total, unit=unit)) as task:
        yield task


@contextmanager
def stage(what: str) -> Iterator[None]:
    """A computation in one piece, for example ``loading the run``."""
    with running(Task(what)):
        yield


def track(
    items: Iterable[_Item], before: str, *, unit: str, total: float | None = None
) -> Iterator[_Item]:
    """Pass the items through and count them; give ``total`` if they have no length."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with running(Task(before, total=total, unit=unit)) as task:
        for item in items:
            yield item
            task.advance()


def advance(count: float = 1.0, *, made: bool = True) -> None:
    """Call :meth:`Task.advance` of the innermost running task, if there is one."""
    if tasks := _TASKS.get():
        tasks[-1].advance(count, made=made)


def steps_of(count: float, *, steps: int | None) -> Callable[..., None] | None:
    """An observer of the steps that make the next ``count`` items of the innermost task.

    It must be called at the start and after each of ``steps`` steps. None without a listener or a
    running task, or if the number of steps is unknown.
    """
    tasks = _TASKS.get()
    if steps is None or not tasks or not listening():
        return None
    task, taken = tasks[-1], -1

    def observe(*_: object) -> None:
        nonlocal taken
        taken += 1
        task.within(count * min(1.0, taken / steps))

    return observe


def duration(seconds: float) -> str:
    """``0:07``, ``12:30`` or ``3:05:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
