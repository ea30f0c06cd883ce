"""The pipeline around a stream: pairing, order, threads and failures."""

import threading
import time

import pytest
import torch

from flowexp.streaming import SelfNegative, SimilarityFilter, run_stream
from tests.streaming.models import frames, stream

EQUAL = {"rtol": 0.0, "atol": 1e-12}


def run(x, batch, **options):
    outputs = []
    report = run_stream(iter(x), batch, emit=outputs.append, **options)
    return outputs, report


@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("length", [0, 1, 5, 8])
def test_every_frame_gets_its_own_result(group, length):
    batch = stream(guidance=SelfNegative(scale=1.4), group=group)
    x = frames(length)
    outputs, report = run(x, batch, queue_size=1)
    assert [o.index for o in outputs] == list(range(length))
    single = stream(guidance=SelfNegative(scale=1.4))
    for frame, output in zip(x, outputs, strict=True):
        torch.testing.assert_close(output.x, single.sequential(frame[None])[0], **EQUAL)
        assert not output.is_repeat
        assert 0.0 <= output.latency <= report.seconds
    assert (report.frames, report.skipped) == (length, 0)
    calls = 0 if length == 0 else -(-length // group) + batch.stages - 1
    assert report.evaluations == calls * batch.stages * group
    assert report.fps == pytest.approx(length / report.seconds)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("times", [[0.5], [0.8, 0.5, 0.2]])
def test_skipped_frames_have_the_result_of_the_frame_they_resemble(group, times):
    kept = frames(4)
    x = kept.repeat_interleave(3, dim=0)
    batch = stream(group=group, times=times)
    outputs, report = run(x, batch, similarity=SimilarityFilter(threshold=0.9, max_skip=100))
    assert [o.index for o in outputs] == list(range(12))
    assert [o.source for o in outputs] == [0] * 3 + [3] * 3 + [6] * 3 + [9] * 3
    assert [o.is_repeat for o in outputs] == [False, True, True] * 4
    assert report.skipped == 8
    single = stream(times=times)
    for output in outputs:
        expected = single.sequential(x[output.source][None])[0]
        torch.testing.assert_close(output.x, expected, **EQUAL)


def test_the_filter_draws_from_seed_and_frame():
    still = frames(1).repeat(40, 1, 1, 1) + 0.45 * frames(40, seed=3)
    found = []
    for seed in (0, 0, 1):
        outputs, _ = run(still, stream(), similarity=SimilarityFilter(threshold=0.6), seed=seed)
        found.append([o.source for o in outputs])
    assert found[0] == found[1] != found[2]
    assert 0 < sum(o.is_repeat for o in outputs) < 39


def test_a_second_stream_starts_afresh():
    batch, decide = stream(), SimilarityFilter(threshold=0.9)
    first, _ = run(frames(3), batch, similarity=decide)
    second, report = run(frames(3), batch, similarity=decide)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a.x, b.x, **EQUAL)
    assert report.evaluations == 5 * 3


def test_a_bounded_queue_holds_a_fast_source_back():
    taken, most = [], []

    def source():
        for k, frame in enumerate(frames(12)):
            taken.append(k)
            yield frame

    def emit(output):
        time.sleep(0.01)
        most.append(len(taken) - output.index)

    run_stream(source(), stream(), emit=emit, queue_size=1)
    # two in the batch, one in each queue, one in each thread's hands and one in the main loop's
    assert max(most) <= 8


class BrokenError(Exception):
    pass


def failing(where):
    def source():
        for k, frame in enumerate(frames(40)):
            if where == "source" and k == 5:
                raise BrokenError
            yield frame

    def emit(output):
        if where == "emit" and output.index == 2:
            raise BrokenError

    batch = stream()
    if where == "batch":
        plain, calls = batch.step, []

        def step(x):
            calls.append(1)
            if len(calls) == 4:
                raise BrokenError
            return plain(x)

        batch.step = step
    run_stream(source(), batch, emit=emit, queue_size=2)


@pytest.mark.parametrize("where", ["source", "emit", "batch"])
def test_a_failure_anywhere_ends_the_stream_and_is_told(where):
    before = threading.active_count()
    with pytest.raises(BrokenError):
        failing(where)
    assert threading.active_count() == before


def test_an_endless_source_ends_with_the_failure():
    def endless():
        while True:
            yield frames(1)[0]

    def emit(output):
        raise BrokenError

    with pytest.raises(BrokenError):
        run_stream(endless(), stream(), emit=emit)


def test_refuses():
    with pytest.raises(ValueError, match="queue_size is 0"):
        run(frames(1), stream(), queue_size=0)
