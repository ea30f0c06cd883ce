"""Direct predictions: what the network receives, and where they may be evaluated."""

import math

import pytest
import torch

from flowexp.parameterizations import DataPrediction, NoisePrediction, VelocityPrediction
from flowexp.paths import VE, VP, Linear, Trigonometric

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


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: VelocityPrediction(time_scale=0.0), "time_scale"),
        (lambda: VelocityPrediction(time_scale=math.inf), "time_scale"),
        (lambda: NoisePrediction(min_alpha=1.0), "min_alpha"),
        (lambda: DataPrediction(min_sigma=0.0), "min_sigma"),
    ],
)
def test_impossible_arguments_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
