"""The presets of flow maps hold the parts of their papers, and the exact map is their minimum."""

import re

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.objectives import SquaredL2, SumOfSquares
from flowexp.objectives.flow_map import (
    Adaptive,
    AverageVelocity,
    DataVelocity,
    Eulerian,
    FixedShare,
    Lagrangian,
    LearnedLogVariance,
    OnlineTarget,
    OwnStep,
    OwnVelocity,
    RandomShare,
    Tangent,
    Unweighted,
)
from flowexp.parameterizations import EulerJump, FlowMap, VelocityPrediction
from flowexp.paths import Linear, Path
from flowexp.requirements import Parts
from flowexp.timesteps import LogNormal
from tests.objectives.flow_map.exact import GaussianMap
from tests.objectives.flow_map.rows import batch, compared
from tests.objectives.test_groups import build
from tests.refusals import refusal_of

PRESETS = {
    "meanflow": (DataVelocity, Tangent, Adaptive, SumOfSquares),
    "split_mean_flow": (OwnStep, RandomShare, Unweighted, SquaredL2),
    "flow_map": (DataVelocity, FixedShare, Unweighted, SquaredL2),
    "lsd": (DataVelocity, Lagrangian, LearnedLogVariance, SumOfSquares),
    "esd": (OwnVelocity, Eulerian, LearnedLogVariance, SumOfSquares),
    "psd_m": (OwnStep, FixedShare, LearnedLogVariance, SumOfSquares),
    "psd_u": (OwnStep, RandomShare, LearnedLogVariance, SumOfSquares),
}


@pytest.fixture(scope="module", params=PRESETS)
def preset(request):
    return request.param, build("objective", request.param)


def test_parts_are_those_of_the_paper(preset):
    name, objective = preset
    found = (objective.driver, objective.leg, objective.error_weight, objective.premetric)
    assert tuple(map(type, found)) == PRESETS[name]
    assert isinstance(objective.regressed, AverageVelocity)
    assert isinstance(objective.target, OnlineTarget)
    assert isinstance(objective.diagonal, DataVelocity)
    assert not objective.target.gradient
    assert not objective.driver.gradient
    if isinstance(objective.leg, FixedShare):
        assert objective.leg.share == {"psd_m": 0.5, "flow_map": 1.0}[name]
    if isinstance(objective.premetric, SumOfSquares):
        assert objective.premetric.factor == 1.0
    if isinstance(objective.error_weight, Adaptive):
        assert (objective.error_weight.p, objective.error_weight.c) == (0.75, 1e-3)


def mirrored(model, pairs, times):
    """Other pairs through the same states: the two velocities have the exact one as their mean."""
    t = times[:, :1]
    x_t = (1.0 - t) * pairs.x + t * pairs.e
    velocity = 2.0 * model.velocity(x_t, times[:, 0]) - (pairs.e - pairs.x)
    x, e = x_t - t * velocity, x_t + (1.0 - t) * velocity
    return Pairs(x=x, e=e, conditions={}, uniforms=pairs.uniforms)


def test_no_gradient_pulls_the_exact_map_away(preset):
    """The mean of the difference over pairs of the same x_t is 0, on all rows.

    Methods along the data's velocity are linear in it where the leg is infinitely short. A whole
    leg, trajectory flow matching, is not exact off the diagonal, as is known.
    """
    name, objective = preset
    model = GaussianMap(Path(Linear()), mean=0.2, std=0.6)
    pairs, times = batch(diagonal=3)
    means = 0.5 * sum(
        compared(objective, model, both, times)[2]
        for both in (pairs, mirrored(model, pairs, times))
    )
    assert means[:3].abs().max() < 1e-9
    biased = name == "flow_map"
    assert (means[3:].abs().max() < 1e-9) != biased


def test_a_row_differs_from_the_exact_map_by_its_noise_only(preset):
    """The check above is none if the differences of single pairs vanish, on the diagonal too."""
    model = GaussianMap(Path(Linear()), mean=0.2, std=0.6)
    difference = compared(preset[1], model, *batch(diagonal=3))[2]
    assert torch.all(difference[:3].abs().amax(dim=1) > 0.05)


LAWS = {
    "meanflow": ["sorted", "meanflow", "soflow"],
    "soflow": ["sorted", "meanflow", "soflow"],
    "shortcut": ["dyadic"],
    **{name: ["ect", "tcm", "ict", "noise_grid"] for name in ("ect", "tcm", "ict")},
    "tvm": ["tvm"],
    "imm": ["imm"],
}


@pytest.mark.parametrize("name", LAWS)
def test_a_law_of_other_times_is_answered_by_those_that_fit(name):
    objective = build("objective", name)
    found = refusal_of(objective, timestep=LogNormal())
    assert found is not None
    assert re.split(", | or ", found.partition("Use timestep=")[2].rstrip(".")) == LAWS[name]
    for law in LAWS[name]:
        assert refusal_of(objective, timestep=build("timestep", law)) is None


@pytest.mark.parametrize("name", ["lsd", "esd", "psd_m", "psd_u", "split_mean_flow", "meanflow"])
def test_self_distillation_asks_for_a_flow_map_to_all_times(name):
    """A consistency model, without a second time as input, is refused by all but MeanFlow."""
    objective = build("objective", name)
    conditioned, unconditioned = (
        FlowMap(of=VelocityPrediction(), jump=EulerJump(), conditions_on=names)
        for names in (["gap"], [])
    )
    assert list(objective.needs(Parts(parameterization=conditioned))) == []
    found = [unmet.key for unmet in objective.needs(Parts(parameterization=unconditioned))]
    assert found == {"lsd": [".leg"], "meanflow": []}.get(name, [".driver"])
