"""Threads that hand things to each other, and what happens when one of them fails."""

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["Channel", "Worker"]

T = TypeVar("T")

_POLL = 0.05
_GRACE = 5.0


class _StoppedError(Exception):
    """Another thread failed; there is nothing left to do."""


class Channel(Generic[T]):
    """A bounded queue with an end, for one thread that puts and one that takes.

    Args:
        size: How many things may wait; who puts more, waits.
        stop: Set when any thread fails; whoever waits then is released by an exception.
    """

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[tuple[T] | None] = queue.Queue(size)
        self._stop = stop

    def put(self, item: T) -> None:
        """Add a thing, once there is room."""
        self._put((item,))

    def close(self) -> None:
        """Say that nothing more will come."""
        self._put(None)

    def _put(self, item: tuple[T] | None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=_POLL)
            except queue.Full:
                continue
        raise _StoppedError

    def __iter__(self) -> Iterator[T]:
        while not self._stop.is_set():
            try:
                item = self._queue.get(timeout=_POLL)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item[0]
        raise _StoppedError


class Worker:
    """A thread that lives as long as a ``with`` block, whose failure is the block's failure.

    Args:
        action: What it does.
        stop: Set when it fails, and when the block fails.
    """

    def __init__(self, action: Callable[[], None], stop: threading.Event) -> None:
        self._action = action
        self._stop = stop
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._action()
        except _StoppedError:
            pass
        except BaseException as error:
            self._error = error
            self._stop.set()

    def __enter__(self) -> "Worker":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stop.set()
        # After a failure, a thread that waits for a camera is not waited for.
        self._thread.join(None if error is None else _GRACE)
        if self._error is not None and (error is None or isinstance(error, _StoppedError)):
            raise self._error from None
