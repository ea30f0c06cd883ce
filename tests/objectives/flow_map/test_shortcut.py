"""Shortcut: which rows follow the data, which their own half steps, and where they are guided."""

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.objectives import FlowMapMatching, SquaredL2
from flowexp.objectives.flow_map import (
    DropEach,
    FixedShare,
    GuidedShortest,
    OnlineTarget,
    OwnStep,
    ShortcutLeg,
)
from flowexp.paths import Linear, Path
from flowexp.timesteps import Dyadic
from tests.goldens.flow_maps_network import GoldenFlowMap
from tests.objectives.flow_map.exact import GaussianMap
from tests.objectives.flow_map.rows import analytic, compared

STEPS = 8


class Labelled(GoldenFlowMap):
    """The analytic network with three classes, which counts the rows it evaluates."""

    def __init__(self, seed=3):
        rng = torch.Generator().manual_seed(seed)
        shapes = {"W": (3, 3), "b": (3,), "c": (3,), "E": (4, 3)}
        weights = {
            name: torch.randn(shape, generator=rng, dtype=torch.float64).numpy()
            for name, shape in shapes.items()
        }
        super().__init__(weights, path=Path(Linear()))
        self.rows = 0

    def average_velocity(self, x_t, t, r, **conditions):
        self.rows += len(x_t)
        return super().average_velocity(x_t, t, r, **conditions)


def batch(seed=0, bootstrap=0.5, rows=16, **conditions):
    rng = torch.Generator().manual_seed(seed)
    x, e = torch.randn(2, rows, 3, generator=rng, dtype=torch.float64)
    law = Dyadic(steps=STEPS, bootstrap=bootstrap)
    times = law.sample(rows, schedule=Linear(), rng=rng)
    return Pairs(x=x, e=e, conditions=conditions), times


def shortcut(*, clamp=None, target=None, labels=None):
    target = target or OnlineTarget()
    leg = ShortcutLeg(steps=STEPS, clamp=clamp)
    parts = {"premetric": SquaredL2(), "target": target, "labels": labels}
    return FlowMapMatching(driver=OwnStep(target=target), leg=leg, **parts)


def test_the_shortest_steps_have_the_data_velocity_and_longer_ones_two_halves():
    model, (pairs, times) = analytic(), batch()
    leap, comparison, _ = compared(shortcut(), model, pairs, times)
    shortest = times[:, 0] - times[:, 1] == 1.0 / STEPS
    assert 0 < int(shortest.sum()) < len(times)
    assert torch.equal(comparison.target[shortest], leap.velocity[shortest])
    predicted = model.average_velocity(leap.x_t, leap.t, leap.r)
    torch.testing.assert_close(comparison.prediction, predicted)
    halves = FlowMapMatching(driver=OwnStep(), leg=FixedShare(share=0.5), premetric=SquaredL2())
    _, expected, _ = compared(halves, model, pairs, times)
    longer = ~shortest
    torch.testing.assert_close(comparison.target[longer], expected.target[longer])


def test_longer_steps_of_the_exact_map_have_no_loss():
    pairs, times = batch(bootstrap=1.0)
    loss = shortcut().loss(GaussianMap(Path(Linear())), pairs, times, rng=torch.Generator())
    assert loss.per_sample.max() < 1e-20


def test_clamp_keeps_the_middle_state_and_the_target():
    model, (pairs, times) = analytic(), batch(bootstrap=1.0)
    _, comparison, _ = compared(shortcut(clamp=0.1), model, pairs, times)
    assert comparison.target.abs().max() <= 0.1
    leap, free, _ = compared(shortcut(), model, pairs, times)
    s = 0.5 * (leap.t + leap.r)
    first = model.average_velocity(leap.x_t, leap.t, s)
    middle = (leap.x_t - (leap.t - s)[:, None] * first).clamp(-0.1, 0.1)
    second = model.average_velocity(middle, s, leap.r)
    torch.testing.assert_close(comparison.target, (0.5 * (first + second)).clamp(-0.1, 0.1))
    assert not free.target.allclose(comparison.target)


def test_only_the_shortest_steps_are_guided():
    model = Labelled()
    labels = torch.arange(6) % 3
    t = torch.full((6,), 0.75, dtype=torch.float64)
    r = t - torch.tensor([1, 1, 1, 2, 2, 4], dtype=torch.float64) / STEPS
    x_t = torch.randn(6, 3, dtype=torch.float64)
    plain = model.average_velocity(x_t, t, r, labels=labels)
    bare = model.average_velocity(x_t, t, r, labels=torch.full_like(labels, -1))
    model.rows = 0
    guided = GuidedShortest(scale=1.5, steps=STEPS).of(model)
    found = guided.average_velocity(x_t, t, r, labels=labels)
    assert model.rows == 6 + 3
    torch.testing.assert_close(found[:3], bare[:3] + 1.5 * (plain[:3] - bare[:3]))
    assert torch.equal(found[3:], plain[3:])
    off = GuidedShortest(scale=1.0, steps=STEPS).of(model)
    assert torch.equal(off.average_velocity(x_t, t, r, labels=labels), plain)


def test_only_the_shortest_steps_lose_their_labels():
    pairs, times = batch(labels=torch.arange(16) % 3)
    objective = shortcut(labels=DropEach(label_dropout=0.999))
    leap = objective.leap(Labelled(), pairs, times, rng=torch.Generator().manual_seed(0))
    shortest = objective.leg.on_diagonal(leap)
    assert torch.equal(leap.conditions["labels"] == -1, shortest)
    assert torch.equal(leap.conditions["labels"][~shortest], pairs.conditions["labels"][~shortest])


@pytest.mark.parametrize("wrong", [{"steps": 1}, {"clamp": 0.0}])
def test_bad_numbers(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ShortcutLeg(**wrong)
    with pytest.raises(ValueError, match="steps is 1"):
        GuidedShortest(steps=1)
