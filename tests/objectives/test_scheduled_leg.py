"""A first leg whose length changes over the training, and the curves that it follows."""

import pytest
import torch

from flowexp.objectives.flow_map import (
    ConstantShare,
    CosineShare,
    DataVelocity,
    ExponentialShare,
    FixedShare,
    Leap,
    Legs,
    LinearShare,
    LogarithmicShare,
    OnlineTarget,
    ScheduledShare,
    SigmoidShare,
    StepShare,
    Tangent,
)
from flowexp.paths import Linear
from tests.goldens.flow_maps_network import GoldenFlowMap

F64 = torch.float64
RAMPS = [LinearShare, CosineShare, LogarithmicShare, SigmoidShare, ExponentialShare]
LEGS = Legs(DataVelocity(), OnlineTarget(), DataVelocity())


def model():
    rng = torch.Generator().manual_seed(0)
    shapes = {"W": (3, 3), "b": (3,), "c": (3,)}
    g = {name: torch.randn(shape, dtype=F64, generator=rng) for name, shape in shapes.items()}
    return GoldenFlowMap({name: value.numpy() for name, value in g.items()})


def leap(*, images_seen=0, t=0.9, r=0.2):
    rng = torch.Generator().manual_seed(1)
    x, e = (torch.randn(5, 3, dtype=F64, generator=rng) for _ in range(2))
    t = torch.linspace(t - 0.1, t, 5, dtype=F64)
    return Leap(
        x=x,
        e=e,
        x_t=(1 - t[:, None]) * x + t[:, None] * e,
        velocity=e - x,
        t=t,
        r=torch.full_like(t, r),
        schedule=Linear(),
        s=None,
        conditions={},
        uniforms={},
        images_seen=images_seen,
    )


@pytest.mark.parametrize("ramp", RAMPS)
def test_ramps_fall_from_their_first_to_their_last_value(ramp):
    schedule = ramp(start_kimg=1.0, end_kimg=3.0, initial=0.9, final=0.1)
    shares = [schedule.share(n) for n in range(0, 4001, 50)]
    assert shares == sorted(shares, reverse=True)
    assert shares[:19] == [0.9] * 19
    assert shares[-19:] == [0.1] * 19
    assert schedule.share(2000) < 0.9


def test_halfway():
    ends = {"end_kimg": 2.0, "initial": 1.0, "final": 0.01}
    assert LinearShare(**ends).share(1000) == pytest.approx(0.505)
    assert CosineShare(**ends).share(1000) == pytest.approx(0.505)
    assert SigmoidShare(**ends).share(1000) == pytest.approx(0.505)
    assert ExponentialShare(**ends).share(1000) == pytest.approx(0.1)
    step = StepShare(at_kimg=1.0)
    assert (step.share(999), step.share(1000)) == (1.0, 0.0)


def test_shares_near_the_ends_snap_to_them():
    def share(value, **options):
        return ScheduledShare(schedule=ConstantShare(value=value), **options).share(0)

    assert share(0.004, snap=0.005) == 0.0
    assert share(0.004, snap=0.005, discrete=True) == 0.005
    assert share(0.996, snap=0.005) == 1.0
    assert share(0.9, snap=0.005, whole_above=0.8) == 1.0
    assert share(0.5, snap=0.005) == share(0.5) == 0.5
    assert share(0.004) == 0.004


@pytest.mark.parametrize(
    ("images_seen", "fixed"),
    [(0, FixedShare(share=1.0)), (500, FixedShare(share=0.5)), (1000, Tangent())],
)
def test_it_is_the_fixed_leg_of_the_moment(images_seen, fixed):
    rows, network = leap(images_seen=images_seen), model()
    scheduled = ScheduledShare(schedule=LinearShare(end_kimg=1.0))
    found, wanted = (leg.compare(network, rows, LEGS) for leg in (scheduled, fixed))
    torch.testing.assert_close(found.target, wanted.target, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found.share, wanted.share, rtol=1e-13, atol=0)


def test_the_first_leg_has_a_least_length_but_does_not_overshoot():
    leg = ScheduledShare(schedule=ConstantShare(value=1e-6), min_gap=1e-2)
    rows = leap()
    torch.testing.assert_close(leg.end(rows), rows.t - 1e-2)
    close = leap(t=0.205, r=0.2)
    assert torch.equal(leg.end(close)[-1:], close.r[-1:])


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: ConstantShare(value=1.5), "value"),
        (lambda: LinearShare(end_kimg=0.0), "end_kimg"),
        (lambda: LinearShare(end_kimg=1.0, initial=-0.1), "initial"),
        (lambda: ExponentialShare(end_kimg=1.0, initial=0.0), "initial"),
        (lambda: ExponentialShare(end_kimg=1.0, power=0.0), "power"),
        (lambda: SigmoidShare(end_kimg=1.0, gamma=0.0), "gamma"),
        (lambda: StepShare(at_kimg=-1.0), "at_kimg"),
        (lambda: ScheduledShare(schedule=ConstantShare(), snap=0.5), "snap"),
        (lambda: ScheduledShare(schedule=ConstantShare(), min_gap=-1.0), "min_gap"),
        (lambda: ScheduledShare(schedule=ConstantShare(), whole_above=0.0), "whole_above"),
    ],
)
def test_impossible_arguments_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
