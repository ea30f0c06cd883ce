"""Rows with r = t are flow matching, bit for bit."""

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.models import FlowModel
from flowexp.networks import MLP
from flowexp.objectives import FlowMapMatching, Regression, SumOfSquares, weightings
from flowexp.objectives.flow_map import (
    DataVelocity,
    EndPoint,
    Eulerian,
    FixedShare,
    Lagrangian,
    OwnStep,
    OwnVelocity,
    RandomShare,
    Tangent,
    TeacherVelocity,
)
from flowexp.parameterizations import EulerJump, FlowMap, VelocityPrediction
from flowexp.paths import Linear, Path, Trigonometric
from flowexp.seeding import generator
from tests.objectives.flow_map.exact import GaussianMap
from tests.objectives.flow_map.rows import compared

ROWS = 12
METHODS = {
    "MeanFlow": (DataVelocity(), Tangent()),
    "SplitMeanFlow": (OwnStep(), RandomShare()),
    "Shortcut": (OwnStep(), FixedShare()),
    "trajectory flow matching": (DataVelocity(), FixedShare(share=1.0)),
    "LSD": (DataVelocity(), Lagrangian()),
    "ESD": (OwnVelocity(), Eulerian()),
}
PREMETRIC = SumOfSquares(factor=1.0)


def flow_map(path):
    """A network in float32 conditioned on the gap, with random weights in every layer."""
    torch.manual_seed(0)
    network = MLP(
        in_channels=2, out_channels=2, hidden=16, depth=1, noise_channels=8, scalars=["gap"]
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    rule = FlowMap(of=VelocityPrediction(), jump=EulerJump())
    return FlowModel(path, network=network, parameterization=rule)


def drawn(*, diagonal):
    rng = generator(0, "rows")
    x, e = torch.randn(2, ROWS, 2, generator=rng)
    t = torch.rand(ROWS, 2, generator=rng, dtype=torch.float64).sort(dim=1, descending=True).values
    t[:diagonal, 1] = t[:diagonal, 0]
    return Pairs(x=x, e=e, conditions={}), t


def loss_and_gradients(objective, model, pairs, t):
    rows = objective.loss(model, pairs, t, rng=generator(0, "loss")).per_sample
    gradients = torch.autograd.grad(rows.sum(), list(model.network.parameters()))
    return rows.detach(), gradients


@pytest.mark.parametrize("schedule", [Linear(), Trigonometric()])
@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradients_are_those_of_flow_matching(method, schedule):
    driver, leg = METHODS[method]
    model = flow_map(Path(schedule))
    pairs, t = drawn(diagonal=ROWS)
    ours = FlowMapMatching(driver=driver, leg=leg, premetric=PREMETRIC)
    plain = Regression("velocity", weighting=weightings.Uniform(), premetric=PREMETRIC)
    rows, gradients = loss_and_gradients(ours, model, pairs, t)
    expected, others = loss_and_gradients(plain, model, pairs, t[:, 0])
    assert torch.equal(rows, expected)
    assert all(map(torch.equal, gradients, others))


@pytest.mark.parametrize("method", METHODS)
def test_such_rows_of_a_mixed_batch_have_the_loss_of_flow_matching(method):
    """To float32's rounding, since the network sees a part of the batch at once."""
    driver, leg = METHODS[method]
    model = flow_map(Path(Linear()))
    pairs, t = drawn(diagonal=5)
    ours = FlowMapMatching(driver=driver, leg=leg, premetric=PREMETRIC)
    plain = Regression("velocity", weighting=weightings.Uniform(), premetric=PREMETRIC)
    rows, _ = loss_and_gradients(ours, model, pairs, t)
    expected, _ = loss_and_gradients(plain, model, pairs, t[:, 0])
    torch.testing.assert_close(rows[:5], expected[:5], rtol=1e-5, atol=1e-6)


def test_the_velocity_there_is_the_drivers_where_it_knows_it():
    """A teacher's, as in SplitMeanFlow's first stage; that of the data where the model drives."""
    path = Path(Linear())
    model, teacher = flow_map(path), GaussianMap(path)
    pairs, t = drawn(diagonal=5)
    taught = FlowMapMatching(
        driver=OwnStep(),
        leg=RandomShare(),
        premetric=PREMETRIC,
        diagonal=TeacherVelocity(teacher=teacher),
    )
    leap, comparison, _ = compared(taught, model, pairs, t)
    expected = teacher.velocity(leap.x_t, leap.t)
    assert torch.equal(comparison.target[:5], expected[:5])
    alone = FlowMapMatching(driver=OwnStep(), leg=RandomShare(), premetric=PREMETRIC)
    _, comparison, _ = compared(alone, model, pairs, t)
    assert torch.equal(comparison.target[:5], leap.velocity[:5])


def test_end_points_have_no_error_at_equal_times():
    pairs, t = drawn(diagonal=ROWS)
    model = flow_map(Path(Linear()))
    ends = FlowMapMatching(
        driver=DataVelocity(), leg=Tangent(), premetric=PREMETRIC, regressed=EndPoint()
    )
    rows, _ = loss_and_gradients(ends, model, pairs, t)
    assert torch.equal(rows, torch.zeros(ROWS))
