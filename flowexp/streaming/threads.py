"""Threads that pass items to each other and fail together."""

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
    """Another thread failed."""


class Channel(Generic[T]):
    """A bounded queue with an end, for one thread that puts and one that takes.

    Args:
        size: How many items may wait; :meth:`put` blocks while it is full.
        stop: Set when any thread fails; waiting threads then get an exception.
    """

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[tuple[T] | None] = queue.Queue(size)
        self._stop = stop

    def put(self, item: T) -> None:
        """Add an item, once there is room."""
        self._put((item,))

    def close(self) -> None:
        """Mark the end."""
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
    """A thread for the duration of a ``with`` block, which fails if the thread does.

    Args:
        action: The work of the thread.
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
        # After a failure, do not wait long for a thread that is blocked by a camera.
        self._thread.join(None if error is None else _GRACE)
        if self._error is not None and (error is None or isinstance(error, _StoppedError)):
            raise self._error from None
