"""Stable targets: zero loss for the ideal model of the batch, and the limits."""

import math

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.objectives import Regression, SquaredL2, StableTarget
from flowexp.objectives.weightings import EDM, Uniform
from flowexp.parameterizations import EDMPreconditioning
from flowexp.paths import VE, Linear, Path
from flowexp.seeding import generator
from tests.objectives.models import tiny_model
from tests.samplers.closed_forms import DenoiserModel, finite_set_denoiser

BATCH = 6


def batch(path, labels=None):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, 6, generator=rng, dtype=torch.float64)
    e = path.source.sample((BATCH, 6), rng=generator(0, "source"), dtype=torch.float64)
    t = torch.linspace(0.05, 0.95, BATCH, dtype=torch.float64)
    return Pairs(x, e, {} if labels is None else {"labels": labels}), t


def loss(objective, model, pairs, t):
    return objective.loss(model, pairs, t, rng=generator(0, "objective")).per_sample


@pytest.mark.parametrize("target", ["data", "noise", "velocity"])
@pytest.mark.parametrize("schedule", [VE(), Linear()])
@pytest.mark.parametrize("D", [3.0, math.inf])
def test_ideal_model_of_the_batch_has_no_loss(target, schedule, D):
    path = Path(schedule, D=D)
    pairs, t = batch(path)
    t = t * (3.0 if isinstance(schedule, VE) else 1.0)
    ideal = DenoiserModel(path, finite_set_denoiser(pairs.x, D=D))
    stable = StableTarget(target, weighting=Uniform(), premetric=SquaredL2())
    plain = Regression(target, weighting=Uniform(), premetric=SquaredL2())
    assert float(loss(stable, ideal, pairs, t).max()) < 1e-20
    assert float(loss(plain, ideal, pairs, t).max()) > 1e-3


@pytest.mark.parametrize("target", ["data", "noise", "velocity"])
def test_a_label_of_its_own_leaves_the_plain_target(target):
    path = Path(Linear(), D=5.0)
    pairs, t = batch(path, labels=torch.arange(BATCH))
    model = tiny_model(path, EDMPreconditioning())
    stable = StableTarget(target, weighting=EDM(), premetric=SquaredL2())
    plain = Regression(target, weighting=EDM(), premetric=SquaredL2())
    torch.testing.assert_close(loss(stable, model, pairs, t), loss(plain, model, pairs, t))


def test_only_the_trained_rows_count_but_all_serve_the_mean():
    path = Path(VE(), D=3.0)
    pairs, t = batch(path)
    model = tiny_model(path, EDMPreconditioning())
    whole = loss(StableTarget("data", weighting=EDM(), premetric=SquaredL2()), model, pairs, t)
    part = StableTarget("data", weighting=EDM(), premetric=SquaredL2(), trained=2)
    found = loss(part, model, pairs, t)
    assert found.shape == (BATCH,)
    torch.testing.assert_close(found.mean(), whole[:2].mean())
    assert found[2:].tolist() == [0.0] * 4


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="target is 'score'"):
        StableTarget("score", weighting=EDM(), premetric=SquaredL2())
    with pytest.raises(ValueError, match="trained is 0"):
        StableTarget("data", weighting=EDM(), premetric=SquaredL2(), trained=0)
