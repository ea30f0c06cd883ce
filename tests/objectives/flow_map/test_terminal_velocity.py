"""Terminal velocity matching on exact maps, and the guidance scale as an input."""

import pytest
import torch
from torch import nn

from flowexp.couplings import Pairs
from flowexp.models import FlowModel
from flowexp.objectives import SquaredL2, TerminalVelocityMatching
from flowexp.objectives.flow_map import (
    CentralDifference,
    ConstantScale,
    InverseScale,
    Lagrangian,
    UniformScale,
)
from flowexp.parameterizations import EulerJump, FlowMap, VelocityPrediction
from flowexp.paths import Linear, Path
from tests.objectives.flow_map.exact import GaussianMap
from tests.objectives.flow_map.rows import analytic
from tests.refusals import refusal_of


def batch(rows=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x, e = torch.randn(2, rows, 3, generator=rng, dtype=torch.float64)
    times = torch.rand(rows, 3, generator=rng, dtype=torch.float64) * 0.8 + 0.1
    ordered = times[:, :2].sort(dim=1, descending=True).values
    return Pairs(x=0.5 * x, e=e, conditions={}), torch.cat([ordered, times[:, 2:]], dim=1)


def terms_of(objective, model, pairs, times):
    leap = objective.leap(model, pairs, times, rng=torch.Generator().manual_seed(1))
    return leap, objective.terms(model, leap)


def test_the_exact_map_has_no_terminal_error_and_flow_matching_beside_it():
    objective = TerminalVelocityMatching(leg=Lagrangian(), premetric=SquaredL2())
    model, (pairs, times) = GaussianMap(Path(Linear())), batch()
    _, terms = terms_of(objective, model, pairs, times)
    assert terms["terminal"].max() < 1e-20
    point = model.path.point(pairs.x, pairs.e, times[:, 2])
    velocity = model.average_velocity(point.x_t, times[:, 2], times[:, 2])
    torch.testing.assert_close(terms["diagonal"], SquaredL2()(velocity - point.velocity))
    loss = objective.loss(model, pairs, times, rng=torch.Generator()).per_sample
    torch.testing.assert_close(loss, (terms["terminal"] + terms["diagonal"]).float())


def test_rows_with_equal_times_have_the_second_term_only():
    objective = TerminalVelocityMatching(leg=Lagrangian(), premetric=SquaredL2())
    pairs, times = batch()
    times[:3, 1] = times[:3, 0]
    _, terms = terms_of(objective, analytic(), pairs, times)
    assert torch.equal(terms["terminal"] == 0.0, torch.arange(6) < 3)
    assert (terms["diagonal"] > 0.0).all()


def test_a_central_difference_agrees_with_the_derivative():
    pairs, times = batch()
    found = [
        terms_of(
            TerminalVelocityMatching(leg=Lagrangian(derivative=how), premetric=SquaredL2()),
            analytic(),
            pairs,
            times,
        )[1]["terminal"]
        for how in (None, CentralDifference(step=1e-4))
    ]
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)


class Conditioned(nn.Module):
    scalars = ("gap", "guidance_scale")

    def forward(self, x, c_noise, scalars=None):
        gap, scale = (scalars[name].to(x).expand(len(x)) for name in self.scalars)
        return x + (gap + scale)[:, None]


def test_the_scale_multiplies_the_output_on_request():
    t, r, w = (torch.tensor([v], dtype=torch.float64) for v in (0.8, 0.3, 2.5))
    x_t = torch.ones(1, 3, dtype=torch.float64)
    ends = {}
    for scaled in (False, True):
        rule = FlowMap(
            of=VelocityPrediction(),
            jump=EulerJump(),
            conditions_on=["gap", "guidance_scale"],
            scaled_by_guidance=scaled,
        )
        model = FlowModel(Path(Linear()), network=Conditioned(), parameterization=rule)
        output = 1.0 + 0.5 + (1.0 - 1.0 / 2.5)
        end = model.flow_map(x_t, t, r, guidance_scale=w)
        torch.testing.assert_close(end, x_t - 0.5 * (2.5 if scaled else 1.0) * output)
        velocity = model.velocity(x_t, t, guidance_scale=w)
        assert velocity[0, 0] == pytest.approx((2.5 if scaled else 1.0) * 1.6, rel=1e-6)
        ends[scaled] = model.flow_map(x_t, t, r, guidance_scale=torch.ones_like(w))
    torch.testing.assert_close(ends[False], ends[True])


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (ConstantScale(scale=2.0), [2.0, 2.0, 2.0]),
        (UniformScale(smallest=1.5, largest=3.5), [1.5, 2.5, 3.5]),
        (InverseScale(), [100.0, 2.0, 1.0]),
    ],
)
def test_laws_of_the_scale(inputs, expected):
    u = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)
    if isinstance(inputs, InverseScale):
        u[0] = 0.01
    objective = TerminalVelocityMatching(
        leg=Lagrangian(), premetric=SquaredL2(), guidance_inputs=inputs
    )
    pairs, times = batch(rows=3)
    drawn = Pairs(x=pairs.x, e=pairs.e, conditions={}, uniforms=u[:, : inputs.uniforms])
    leap = objective.leap(analytic(), drawn, times, rng=torch.Generator())
    torch.testing.assert_close(leap.conditions["guidance_scale"], torch.tensor(expected).double())


def test_it_needs_the_third_time():
    class TwoTimes:
        columns = ("t", "r")

    objective = TerminalVelocityMatching(leg=Lagrangian(), premetric=SquaredL2())
    assert "timestep=tvm" in refusal_of(objective, timestep=TwoTimes())


@pytest.mark.parametrize(
    "wrong", [lambda: ConstantScale(scale=0.0), lambda: UniformScale(smallest=2.0, largest=1.0)]
)
def test_bad_scales(wrong):
    with pytest.raises(ValueError, match=r"scale|smallest"):
        wrong()
