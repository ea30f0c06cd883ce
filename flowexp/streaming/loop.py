"""The loop around a stream's batch; frames come in and results go out in threads."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from flowexp.progress import track
from flowexp.seeding import generator
from flowexp.streaming.batch import StreamBatch

__all__ = ["SimilarityFilter", "skip_probability", "StreamOutput", "StreamReport", "run_stream"]

_EPS = 1e-6


def skip_probability(frame: Tensor, reference: Tensor, *, threshold: float) -> float:
    """``max(0, 1 - (1 - S) / (1 - threshold))`` with S the cosine of the two frames.

    Frames are (C, H, W), in [-1, 1]; those in [0, 1] are more similar to each other. They are
    skipped from the similarity ``threshold`` on; at 1 and above never.

    Source: Kodaira et al., StreamDiffusion, 2023, arXiv 2312.12491, eq. 8 and 9.
    """
    if threshold >= 1.0:
        return 0.0
    a, b = frame.reshape(-1).double(), reference.reshape(-1).double()
    norms = torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b)
    cosine = float(torch.dot(a, b) / norms.clamp(min=_EPS))
    return max(0.0, 1.0 - (1.0 - cosine) / (1.0 - threshold))


class SimilarityFilter:
    """Decides frame by frame whether a frame is skipped; it remembers the last one that was not.

    A frame is processed if ``p < u`` with the skip probability p and a uniform u. A frame that
    would be skipped is still processed when more than ``max_skip`` frames were skipped since the
    last time this happened; frames processed in between do not reset that count. Identical frames
    are therefore skipped ``max_skip + 1`` times between two that are processed.

    Args:
        threshold: Similarity from which on frames are skipped.
        max_skip: See above, >= 0.

    Source: Kodaira et al., StreamDiffusion, 2023, arXiv 2312.12491, section 3.4; the limit is that
    of their code (image_filter.py), the paper has none.
    """

    def __init__(self, *, threshold: float = 0.98, max_skip: int = 10) -> None:
        if max_skip < 0:
            raise ValueError(f"max_skip is {max_skip}; expected a number >= 0")
        self.threshold = float(threshold)
        self.max_skip = max_skip
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self.skipped = 0
        self._reference: Tensor | None = None

    def skips(self, frame: Tensor, *, u: float) -> bool:
        """Whether the next frame, (C, H, W) in [-1, 1], is skipped, by its uniform draw u."""
        if self._reference is None:
            self._reference = frame.clone()
            return False
        if skip_probability(frame, self._reference, threshold=self.threshold) >= u:
            if self.skipped <= self.max_skip:
                self.skipped += 1
                return True
            self.skipped = 0
        self._reference = frame.clone()
        return False


T = TypeVar("T")

_POLL = 0.05
_GRACE = 5.0


@dataclass(frozen=True)
class StreamOutput:
    """The result of one frame.

    Attributes:
        index: Number of the frame in the stream.
        source: Number of the frame that was processed for it: its own, or, if it was skipped, that
            of the last processed frame before it.
        x: Result, (C, H, W).
        latency: Seconds between the frame's arrival and its result.
    """

    index: int
    source: int
    x: Tensor
    latency: float

    @property
    def is_repeat(self) -> bool:
        """Whether the frame was skipped."""
        return self.source != self.index


@dataclass(frozen=True)
class StreamReport:
    """Counts and times of a stream.

    Attributes:
        frames: Frames that came in, and results that went out.
        skipped: Frames that were not processed.
        seconds: From the first frame to the last result.
        latency_mean, latency_max: Seconds from a frame's arrival to its result.
        evaluations: Network evaluations, including those for empty places of the batch.
    """

    frames: int
    skipped: int
    seconds: float
    latency_mean: float
    latency_max: float
    evaluations: int

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds > 0.0 else float("inf")


def run_stream(
    frames: Iterable[Tensor],
    batch: StreamBatch,
    *,
    emit: Callable[[StreamOutput], None],
    similarity: SimilarityFilter | None = None,
    seed: int = 0,
    queue_size: int = 8,
) -> StreamReport:
    """Send all frames through the batch; one result per frame, in the order of the frames.

    Frames are read in one thread and results emitted in another, each behind a bounded queue: a
    slow camera or disk does not hold up the network, and a fast camera waits. A skipped frame has
    the result of the last processed one. After the last frame the batch is flushed. The results do
    not depend on the scheduling of the threads.

    Args:
        frames: (C, H, W) each, float32 in [-1, 1].
        batch: The stages; it is reset first.
        emit: Called with every result, on the CPU, in a thread of its own.
        similarity: Decides which repeated frames are skipped; None = none. It is reset first.
        seed: Decides the filter's draws: that of frame k is drawn from (seed, "similarity", k).
        queue_size: Frames and results that may wait, >= 1.

    Raises:
        Exception: What the frames' iterator or ``emit`` raised.
    """
    if queue_size < 1:
        raise ValueError(f"queue_size is {queue_size}; expected at least 1")
    batch.reset()
    if similarity is not None:
        similarity.reset()
    before = batch.evaluations
    stop = threading.Event()
    incoming: _Channel[_Frame] = _Channel(queue_size, stop)
    outgoing: _Channel[_Result] = _Channel(queue_size, stop)
    results = _Results(batch, outgoing)
    latencies: list[float] = []
    total = len(frames) if isinstance(frames, Sized) else None

    def take() -> None:
        for index, x in enumerate(frames):
            incoming.put(_Frame(index, x, time.perf_counter()))
        incoming.put(None)

    def give() -> None:
        for frame, source, x in outgoing:
            # The copy waits for the device, so the time is taken after it.
            copy = x.cpu()
            latencies.append(time.perf_counter() - frame.moment)
            emit(StreamOutput(frame.index, source, copy, latencies[-1]))

    start = time.perf_counter()
    with _in_thread(take, stop), _in_thread(give, stop):
        for frame in track(incoming, "processed", unit="frames", total=total):
            rng = generator(seed, "similarity", frame.index)
            u = float(torch.rand((), dtype=torch.float64, generator=rng))
            results.add(frame, skipped=similarity is not None and similarity.skips(frame.x, u=u))
        results.finish()
        outgoing.put(None)
    return StreamReport(
        frames=len(latencies),
        skipped=results.skipped,
        seconds=time.perf_counter() - start,
        latency_mean=sum(latencies) / max(1, len(latencies)),
        latency_max=max(latencies, default=0.0),
        evaluations=batch.evaluations - before,
    )


@dataclass(frozen=True)
class _Frame:
    """A frame, its number, and the time of its arrival."""

    index: int
    x: Tensor
    moment: float


_Result = tuple[_Frame, int, Tensor]
"""A frame, the number of the frame that was processed for it, and its result."""


class _StoppedError(Exception):
    """Another thread failed."""


class _Channel(Generic[T]):
    """A bounded queue with an end, for one thread that puts and one that takes.

    When any thread fails, ``stop`` is set, and waiting threads get a :class:`_StoppedError`.
    """

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(size)
        self._stop = stop

    def put(self, item: T | None) -> None:
        """Add an item, once there is room; None is the end."""
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
            yield item
        raise _StoppedError


@contextmanager
def _in_thread(action: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    """Run ``action`` during a ``with`` block; if one of the two fails, so does the other."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except _StoppedError:
            pass
        except BaseException as error:
            errors.append(error)
            stop.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    except BaseException as error:
        stop.set()
        # Do not wait long for a thread that is blocked by a camera.
        thread.join(_GRACE)
        if errors and isinstance(error, _StoppedError):
            raise errors[0] from None
        raise
    thread.join()
    if errors:
        raise errors[0]


class _Results:
    """Pairs the batch's outputs with all frames, skipped ones included, in order."""

    def __init__(self, batch: StreamBatch, outgoing: _Channel[_Result]) -> None:
        self.skipped = 0
        self._batch = batch
        self._outgoing = outgoing
        self._group: list[Tensor] = []
        self._expected: deque[tuple[_Frame, int]] = deque()
        self._processed: deque[int] = deque()
        self._source = -1
        self._last: tuple[int, Tensor] | None = None

    def add(self, frame: _Frame, *, skipped: bool) -> None:
        """Take a frame; a skipped one has the result of the last processed one."""
        if skipped:
            self.skipped += 1
        else:
            self._source = frame.index
            self._processed.append(frame.index)
            self._group.append(frame.x)
        self._expected.append((frame, self._source))
        self._give()
        if len(self._group) == self._batch.group:
            self._push()

    def finish(self) -> None:
        """Finish all frames in progress at the end of the stream."""
        if self._group:
            # Fill the group with copies of the last frame; their results are dropped.
            self._group += [self._group[-1]] * (self._batch.group - len(self._group))
            self._push()
        for rows in self._batch.flush():
            self._pair(rows)

    def _push(self) -> None:
        rows = self._batch.push(torch.stack(self._group))
        self._group.clear()
        if rows is not None:
            self._pair(rows)

    def _pair(self, rows: Tensor) -> None:
        for x in rows:
            if self._processed:
                self._last = self._processed.popleft(), x
                self._give()

    def _give(self) -> None:
        while self._expected and self._last is not None:
            (frame, source), (settled, x) = self._expected[0], self._last
            if source != settled:
                return
            self._expected.popleft()
            self._outgoing.put((frame, source, x))
