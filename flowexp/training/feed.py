"""The batches of a training as an iterable with an end, fetched ahead where that gains anything."""

import queue
import threading
from collections.abc import Iterator

import torch

from flowexp.data import BatchStream, DataBatch

__all__ = ["BatchFeed"]

_AHEAD = 2


class BatchFeed:
    """Batches of the steps ``start`` .. ``stop - 1`` of a stream.

    Batches are functions of their step, so fetching ahead changes nothing but the time: a thread
    gathers and pins the next ones while an accelerator computes. On the CPU it would compete with
    the training for the same cores.

    Args:
        stream: The batches of this process.
        start: First step.
        stop: Step after the last.
        ahead: Whether a thread fetches ahead into pinned memory.
    """

    def __init__(self, stream: BatchStream, *, start: int, stop: int, ahead: bool) -> None:
        self.stream = stream
        self.start = start
        self.stop = stop
        self.ahead = ahead

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[DataBatch]:
        if self.ahead:
            yield from self._fetched_ahead()
        else:
            yield from map(self.stream.batch, range(self.start, self.stop))

    def _fetched_ahead(self) -> Iterator[DataBatch]:
        ready: queue.Queue[DataBatch | BaseException] = queue.Queue(maxsize=_AHEAD)
        finished = threading.Event()
        worker = threading.Thread(target=self._fill, args=(ready, finished), daemon=True)
        worker.start()
        try:
            for _ in range(len(self)):
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            finished.set()

    def _fill(
        self, ready: "queue.Queue[DataBatch | BaseException]", finished: threading.Event
    ) -> None:
        try:
            for step in range(self.start, self.stop):
                item = _pinned(self.stream.batch(step))
                if not _offer(ready, item, finished):
                    return
        except BaseException as error:  # the training thread is the one that must raise it
            _offer(ready, error, finished)


def _offer(
    ready: "queue.Queue[DataBatch | BaseException]",
    item: DataBatch | BaseException,
    finished: threading.Event,
) -> bool:
    """Put an item unless the reader has gone away."""
    while not finished.is_set():
        try:
            ready.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False


def _pinned(batch: DataBatch) -> DataBatch:
    if not torch.cuda.is_available():
        return batch
    return batch.pin_memory()
