"""Direct predictions: what the network receives, and where they may be evaluated."""

import math

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.models import FlowModel
from flowexp.objectives import Regression, SquaredL2, weightings
from flowexp.parameterizations import (
    DataPrediction,
    NoisePrediction,
    ScorePrediction,
    VelocityPrediction,
)
from flowexp.paths import VE, VP, Linear, Path, StudentT, Trigonometric
from flowexp.requirements import Parts

F64 = torch.float64


@pytest.mark.parametrize("law", [VelocityPrediction, NoisePrediction, DataPrediction])
def test_network_receives_the_scaled_unit_time_and_a_bounded_state(law):
    t = torch.tensor([0.1, 0.9], dtype=F64)
    inputs = law(time_scale=1000.0).inputs(Linear(), t, Linear().coefficients(t))
    torch.testing.assert_close(inputs.c_noise, 1000.0 * t)
    assert inputs.c_in.tolist() == [1.0, 1.0]
    sigma = torch.tensor([0.002, 80.0], dtype=F64)
    inputs = law(time_scale=1.0).inputs(VE(), sigma, VE().coefficients(sigma))
    torch.testing.assert_close(inputs.c_noise, sigma / (1 + sigma))
    torch.testing.assert_close(inputs.c_in, (1 + sigma**2).rsqrt())


@pytest.mark.parametrize(
    ("parameterization", "own"),
    [(VelocityPrediction(), "velocity"), (NoisePrediction(), "noise"), (DataPrediction(), "data")],
)
def test_output_is_the_prediction_itself(parameterization, own):
    t = torch.tensor([0.3], dtype=F64)
    affine = getattr(parameterization.conversion(VP().coefficients(t)), own)
    assert affine.state.tolist() == [0.0]
    assert affine.output.tolist() == [1.0]


def test_time_ranges_avoid_the_singular_end():
    assert VelocityPrediction().time_range(Linear()) == (0.0, 1.0)
    low, high = NoisePrediction(min_alpha=1e-3).time_range(Trigonometric())
    assert low == 0.0
    assert math.cos(math.pi / 2 * high) == pytest.approx(1e-3, rel=1e-9)
    low, high = DataPrediction(min_sigma=1e-3).time_range(Linear())
    assert low == pytest.approx(1e-3 / 1.001, rel=1e-12)
    assert high == 1.0
    assert NoisePrediction().time_range(VE()) == (0.002, 80.0)
    assert ScorePrediction().time_range(Linear()) == NoisePrediction().time_range(Linear())


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: VelocityPrediction(time_scale=0.0), "time_scale"),
        (lambda: VelocityPrediction(time_scale=math.inf), "time_scale"),
        (lambda: NoisePrediction(min_alpha=1.0), "min_alpha"),
        (lambda: ScorePrediction(min_alpha=0.0), "min_alpha"),
        (lambda: DataPrediction(min_sigma=0.0), "min_sigma"),
    ],
)
def test_impossible_arguments_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()


class Output(torch.nn.Module):
    """A network with a fixed output, which is its parameter."""

    def __init__(self, output):
        super().__init__()
        self.output = torch.nn.Parameter(output)

    def forward(self, x, c_noise):
        return self.output


@pytest.mark.parametrize("schedule", [Linear(), VP(), VE()], ids=repr)
def test_a_network_of_the_score(schedule):
    """Its predictions are those of the noise -sigma F, and objective=noise is |sigma F + e|^2."""
    rng = torch.Generator().manual_seed(0)
    x, e, f = torch.randn(3, 4, 2, generator=rng, dtype=F64)
    t = torch.tensor([0.05, 0.4, 0.6, 0.9], dtype=F64)
    sigma = schedule.coefficients(t).sigma[:, None]
    f = f.to(torch.float32)
    path, noise = Path(schedule), (-sigma * f).to(F64)
    by_score = FlowModel(path, network=Output(f), parameterization=ScorePrediction())
    prediction = by_score.predict(path.point(x, e, t).x_t, t)
    torch.testing.assert_close(prediction.score, f.to(F64), rtol=1e-12, atol=0)
    direct = type(prediction).of_noise(path, prediction.x_t, t, noise)
    for name in ("velocity", "data", "noise"):
        torch.testing.assert_close(
            getattr(prediction, name), getattr(direct, name), rtol=1e-12, atol=1e-12
        )
    objective = Regression("noise", weighting=weightings.Uniform(), premetric=SquaredL2())
    loss = objective.loss(by_score, Pairs(x=x, e=e, conditions={}), t, rng=rng).per_sample
    torch.testing.assert_close(
        loss.to(F64), (sigma * f + e).square().mean(1), rtol=1e-6, atol=0, check_dtype=False
    )
    loss.sum().backward()
    gradient = by_score.network.output.grad.to(F64)
    torch.testing.assert_close(gradient, sigma * (sigma * f + e), rtol=1e-5, atol=1e-6)


def test_a_score_needs_a_gaussian_source():
    parts = Parts(path=Path(VE(), source=StudentT(3.0)))
    (unmet,) = (u for u in ScorePrediction().needs(parts) if "Gaussian" in u.problem)
    assert "path.D=inf" in unmet.remedy
