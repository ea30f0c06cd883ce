"""Conversions between predictions: exact on a known pair, inverse to each other, finite at ends."""

import pytest
import torch

from flowexp.paths import Path, Prediction
from flowexp.paths.conversions import FromPreconditioned
from tests.paths.schedules import SCHEDULES, inner_times

every_schedule = pytest.mark.parametrize("name", SCHEDULES)
KINDS = ("velocity", "data", "noise")
MAKERS = {
    "velocity": Prediction.of_velocity,
    "data": Prediction.of_data,
    "noise": Prediction.of_noise,
}


def known_point(name, dtype=torch.float64):
    path = Path(SCHEDULES[name])
    rng = torch.Generator().manual_seed(1)
    t = inner_times(path.schedule)
    x = 0.5 * torch.randn(len(t), 2, 3, generator=rng, dtype=dtype)
    e = torch.randn(len(t), 2, 3, generator=rng, dtype=dtype)
    return path, path.point(x, e, t)


@every_schedule
@pytest.mark.parametrize("kind", KINDS)
def test_each_prediction_of_a_known_pair_gives_the_others(name, kind):
    path, point = known_point(name)
    prediction = MAKERS[kind](path, point.x_t, point.t, getattr(point, kind))
    for other in KINDS:
        torch.testing.assert_close(
            getattr(prediction, other), getattr(point, other), rtol=1e-10, atol=1e-10
        )
    sigma = path.schedule.coefficients(point.t).sigma[:, None, None]
    torch.testing.assert_close(prediction.score, -point.e / sigma, rtol=1e-9, atol=1e-9)


@every_schedule
@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_round_trips_of_arbitrary_outputs(name, first, second):
    path, point = known_point(name)
    output = torch.randn(point.x_t.shape, generator=torch.Generator().manual_seed(2)).double()
    there = getattr(MAKERS[first](path, point.x_t, point.t, output), second)
    back = getattr(MAKERS[second](path, point.x_t, point.t, there), first)
    # Relative to the largest number on the way: near the data, noise is output / sigma.
    scale = max(1.0, there.abs().max().item(), output.abs().max().item())
    assert (back - output).abs().max() < 1e-10 * scale


@every_schedule
def test_preconditioned_output_is_edm_at_the_rescaled_state(name):
    path, point = known_point(name)
    sd = 0.5
    c = path.schedule.coefficients(point.t)
    output = torch.randn(point.x_t.shape, generator=torch.Generator().manual_seed(3)).double()
    prediction = Prediction(path, point.x_t, output, FromPreconditioned(c, sigma_data=sd))
    nsr = (c.sigma / c.alpha)[:, None, None]
    scaled = point.x_t / c.alpha[:, None, None]
    skip = sd**2 / (nsr**2 + sd**2)
    out = nsr * sd / (nsr**2 + sd**2).sqrt()
    data = skip * scaled + out * output
    torch.testing.assert_close(prediction.data, data, rtol=1e-10, atol=1e-10)
    from_data = Prediction.of_data(path, point.x_t, point.t, data)
    torch.testing.assert_close(prediction.noise, from_data.noise, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(prediction.velocity, from_data.velocity, rtol=1e-8, atol=1e-8)


def test_predictions_keep_the_dtype_of_the_state():
    path, point = known_point("linear", dtype=torch.float32)
    prediction = Prediction.of_velocity(path, point.x_t, point.t, point.velocity)
    assert {getattr(prediction, k).dtype for k in (*KINDS, "score")} == {torch.float32}


def test_score_is_refused_on_a_student_t_source():
    path, point = known_point("ve")
    heavy = Path(path.schedule, D=128)
    prediction = Prediction.of_data(heavy, point.x_t, point.t, point.x)
    torch.testing.assert_close(prediction.noise, point.e, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match=r"StudentT\(D=128.0\)"):
        _ = prediction.score


def test_scalar_time_serves_the_whole_batch():
    path, point = known_point("vp")
    t = torch.tensor(0.4, dtype=torch.float64)
    one = Prediction.of_noise(path, point.x_t, t, point.e)
    many = Prediction.of_noise(path, point.x_t, t.expand(len(point.t)), point.e)
    assert torch.equal(one.velocity, many.velocity)
