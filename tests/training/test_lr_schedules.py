"""Learning-rate factors at points where they are known."""

import pytest

from flowexp.training import Constant, Cosine, InverseSqrt, LinearDecay, LRSchedule


@pytest.mark.parametrize(
    ("schedule", "kimg", "factor"),
    [
        (Constant(), 0.0, 1.0),
        (Constant(ramp_up_kimg=10.0), 0.0, 0.0),
        (Constant(ramp_up_kimg=10.0), 2.5, 0.25),
        (Constant(ramp_up_kimg=10.0), 10.0, 1.0),
        (Constant(ramp_up_kimg=10.0), 1e6, 1.0),
        (LinearDecay(end_kimg=100.0), 50.0, 1.0),
        (LinearDecay(end_kimg=100.0), 75.0, 0.5),
        (LinearDecay(end_kimg=100.0), 100.0, 0.0),
        (LinearDecay(end_kimg=100.0), 200.0, 0.0),
        (LinearDecay(end_kimg=100.0, start_fraction=0.0, end_factor=0.2), 50.0, 0.6),
        (LinearDecay(end_kimg=100.0, ramp_up_kimg=20.0), 10.0, 0.5),
        (Cosine(end_kimg=100.0), 0.0, 1.0),
        (Cosine(end_kimg=100.0), 50.0, 0.5),
        (Cosine(end_kimg=100.0, end_factor=0.1), 100.0, 0.1),
        (Cosine(end_kimg=110.0, ramp_up_kimg=10.0), 5.0, 0.5),
        (Cosine(end_kimg=110.0, ramp_up_kimg=10.0), 60.0, 0.5),
        (InverseSqrt(start_kimg=10.0), 5.0, 1.0),
        (InverseSqrt(start_kimg=10.0), 40.0, 0.5),
    ],
)
def test_factor(schedule: LRSchedule, kimg: float, factor: float) -> None:
    assert schedule.factor(kimg * 1000.0) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(ramp_up_kimg=-1.0), "ramp_up_kimg is -1.0"),
        (lambda: LinearDecay(end_kimg=0.0), "end_kimg is 0.0"),
        (lambda: LinearDecay(end_kimg=1.0, start_fraction=1.0), "start_fraction is 1.0"),
        (lambda: Cosine(end_kimg=1.0, end_factor=2.0), "end_factor is 2.0"),
        (lambda: Cosine(end_kimg=1.0, ramp_up_kimg=1.0), "ramp_up_kimg is 1.0"),
        (lambda: InverseSqrt(start_kimg=0.0), "start_kimg is 0.0"),
    ],
)
def test_impossible_numbers_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
