"""A prediction's error together with a perceptual distance of the predicted data."""

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.objectives import (
    L2,
    PerceptualRegression,
    PseudoHuber,
    Regression,
    SquaredL2,
    weightings,
)
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import VP, Linear, Path
from tests.objectives.models import Fixed, tiny_model


def distance(a, b):
    """A stand-in that is not a function of the difference alone."""
    assert a.dtype == b.dtype == torch.float32
    return (a.square() - b.square()).flatten(1).square().mean(1)


def objective(**changes):
    settings = {
        "weighting": weightings.Alpha(),
        "premetric": PseudoHuber(),
        "perceptual": distance,
    }
    return PerceptualRegression("velocity", **(settings | changes))


def batch(weight=None):
    rng = torch.Generator().manual_seed(0)
    x, e = torch.rand(4, 6, generator=rng) * 2 - 1, torch.randn(4, 6, generator=rng)
    return Pairs(x=x, e=e, conditions={}, weight=weight)


T = torch.tensor([1e-5, 0.2, 0.7, 1.0 - 1e-5], dtype=torch.float64)


def value(objective, model, pairs, t=T):
    return objective.loss(model, pairs, t, rng=torch.Generator()).per_sample


@pytest.mark.parametrize("inverse_time", [False, True])
@pytest.mark.parametrize("schedule", [Linear(), VP()])
def test_is_the_sum_of_its_two_parts(schedule, inverse_time):
    model, pairs = tiny_model(Path(schedule), VelocityPrediction()), batch()
    found = value(objective(inverse_time=inverse_time), model, pairs)
    plain = value(
        Regression("velocity", weighting=weightings.Alpha(), premetric=PseudoHuber()), model, pairs
    )
    c = schedule.coefficients(T)
    x_t = c.alpha[:, None] * pairs.x.double() + c.sigma[:, None] * pairs.e.double()
    data = model.denoise(x_t, T)
    perceptual = distance(data.float(), pairs.x)
    if inverse_time:
        perceptual = perceptual / c.sigma
    torch.testing.assert_close(found, (plain + perceptual).float(), rtol=1e-5, atol=1e-7)


def test_without_a_premetric_the_distance_alone_at_the_source():
    """At t = 1 the predicted data is ``e - v(e)``: rectified flow's distillation."""
    path, pairs = Path(Linear()), batch()
    model = tiny_model(path, VelocityPrediction())
    t = torch.ones(4, dtype=torch.float64)
    found = value(objective(premetric=None), model, pairs, t)
    expected = distance(pairs.e - model.velocity(pairs.e, t), pairs.x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("premetric", [SquaredL2(), L2(), PseudoHuber()])
def test_the_truth_has_no_loss_and_no_gradient(premetric):
    path, pairs = Path(Linear()), batch()
    truth = (pairs.e.double() - pairs.x.double()).requires_grad_()
    loss = value(
        objective(premetric=premetric, inverse_time=True), Fixed(path, "velocity", truth), pairs
    )
    torch.testing.assert_close(loss, torch.zeros(4), rtol=0, atol=1e-6)
    loss.sum().backward()
    assert torch.isfinite(truth.grad).all()
    assert truth.grad.abs().max() < 1e-2


def test_pair_weights_and_logged_parts():
    model, weight = tiny_model(Path(Linear()), VelocityPrediction()), torch.tensor([0.0, 1, 2, 3])
    plain, weighted = batch(), batch(weight)
    found = objective().loss(model, weighted, T, rng=torch.Generator())
    torch.testing.assert_close(found.per_sample, weight * value(objective(), model, plain))
    assert found.metrics.keys() == {"perceptual", "premetric"}
    assert not any(metric.requires_grad for metric in found.metrics.values())


def test_weights_that_are_missing_are_named_before_training():
    class WithFile:
        checked = False

        def check(self):
            self.checked = True

        def __call__(self, a, b):
            return distance(a, b)

    perceptual = WithFile()
    objective(perceptual=perceptual).check()
    assert perceptual.checked
    objective().check()


def test_an_unknown_target_is_named():
    with pytest.raises(ValueError, match="target is 'score'"):
        PerceptualRegression(
            "score", weighting=weightings.Alpha(), premetric=None, perceptual=distance
        )
