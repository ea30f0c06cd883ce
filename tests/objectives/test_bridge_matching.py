"""Bridge matching: without noise it is flow matching; the draws belong to the generator."""

import re

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.objectives import BridgeMatching, Regression, SquaredL2, weightings
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import VE, BrownianNoise, ConstantNoise, Linear, Path
from flowexp.seeding import generator
from tests.objectives.models import tiny_model
from tests.refusals import refusal_of

T = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)


def pairs():
    rng = generator(0, "pairs")
    x, e = torch.randn(2, 8, 2, 3, generator=rng)
    return Pairs(x=x, e=e, conditions={})


def loss(objective, seed=0):
    model = tiny_model(Path(Linear()), VelocityPrediction())
    return objective.loss(model, pairs(), T, rng=generator(seed, "loss")).per_sample


def bridge(noise):
    return BridgeMatching(noise, weighting=weightings.Uniform(), premetric=SquaredL2())


@pytest.mark.parametrize("noise", [ConstantNoise(0.0), BrownianNoise(0.0)])
def test_without_noise_it_is_flow_matching(noise):
    plain = Regression("velocity", weighting=weightings.Uniform(), premetric=SquaredL2())
    assert torch.equal(loss(bridge(noise)), loss(plain))


def test_noise_comes_from_the_generator():
    objective = bridge(BrownianNoise(0.5))
    assert torch.equal(loss(objective), loss(objective))
    assert not torch.equal(loss(objective), loss(objective, seed=1))


def test_paths_in_noise_levels_are_refused():
    assert refusal_of(bridge(ConstantNoise(0.1)), path=Path(Linear())) is None
    assert re.search(r"BridgeMatching.*VE", refusal_of(bridge(ConstantNoise(0.1)), path=Path(VE())))
