import math

import pytest
import torch

from flowexp.paths import VE, Linear, Path
from flowexp.samplers import (
    Churn,
    EDMGrid,
    EDMHeun,
    Euler,
    Given,
    Heun,
    NoiseToSignal,
    StateNoise,
    Time,
    Uniform,
)
from flowexp.seeding import SampleNoise
from tests.samplers.closed_forms import DenoiserModel, mixture_denoiser

E0 = torch.tensor([[1.0, -0.5], [-1.2, 0.8]], dtype=torch.float64)
DENOISER = mixture_denoiser([0.3, 0.7], [[0.5, -0.4], [-0.6, 0.2]], [0.2, 0.3])
NOISE = SampleNoise([3, 4])


def on(schedule, **kwargs):
    return DenoiserModel(Path(schedule, **kwargs), DENOISER)


def test_churn_raises_the_level_within_its_range_only():
    model = on(VE())
    sampler = Euler(
        steps=4,
        time_grid=Given(values=[8.0, 4.0, 2.0, 1.0, 0.0]),
        perturbation=Churn(S_churn=1.0, S_min=2.0, S_max=5.0),
    )
    sampler.sample(model, E0, noise=NOISE)
    assert [float(s) for s in model.sigmas] == pytest.approx([8.0, 5.0, 2.5, 1.0])


def test_churn_is_capped():
    model = on(VE())
    sampler = Euler(steps=1, time_grid=Given(values=[2.0, 0.0]), perturbation=Churn(S_churn=100.0))
    sampler.sample(model, E0, noise=NOISE)
    assert float(model.sigmas[0]) == pytest.approx(2.0 * math.sqrt(2.0))


def test_churn_adds_the_missing_variance():
    """The state evaluated at the raised level is x + sqrt(n_hat^2 - n^2) S_noise eps."""
    evaluated = []

    def denoise(x, sigma):
        evaluated.append(x)
        return torch.zeros_like(x)

    sampler = Euler(
        steps=1,
        time_grid=Given(values=[2.0, 0.0]),
        perturbation=Churn(S_churn=0.25, S_noise=1.1),
    )
    sampler.sample(DenoiserModel(Path(VE()), denoise), E0, noise=NOISE)
    expected = 2.0 * E0 + math.sqrt(2.5**2 - 2.0**2) * 1.1 * NOISE(0, E0)
    torch.testing.assert_close(evaluated[0], expected)


@pytest.mark.parametrize("variable", [Time(), NoiseToSignal()], ids=["time", "nsr"])
def test_churn_is_the_same_in_both_variables_on_the_ve_path(variable):
    churn = {"S_churn": 10.0, "S_noise": 1.01}
    composed = Heun(
        steps=6, time_grid=EDMGrid(), variable=variable, perturbation=Churn(**churn)
    ).sample(on(VE()), E0, noise=NOISE)
    named = EDMHeun(steps=6, time_grid=EDMGrid(), **churn).sample(on(VE()), E0, noise=NOISE)
    torch.testing.assert_close(composed.x, named.x, rtol=0, atol=1e-11)


def test_churn_leaves_an_infinite_level_alone():
    """At t = 1 of the linear path the state is the source itself; nothing can be added."""
    model = on(Linear())
    start = Given(values=[1.0, 0.5, 0.0])
    churned = Euler(steps=2, time_grid=start, perturbation=Churn(S_churn=0.0))
    with pytest.raises(ValueError, match="noise is None"):
        churned.sample(model, E0)
    times = []

    class Constant(DenoiserModel):
        def predict(self, x_t, t, **conditions):
            times.append(float(t))
            return super().predict(x_t, torch.as_tensor(0.5, dtype=torch.float64), **conditions)

    Euler(steps=2, time_grid=start, perturbation=Churn(S_churn=0.4)).sample(
        Constant(Path(Linear()), DENOISER), E0, noise=NOISE
    )
    assert times[0] == 1.0
    assert times[1] == pytest.approx(1.2 / 2.2)


@pytest.mark.parametrize("D", [2.0, math.inf])
def test_state_noise(D):
    """x + scale sigma(t) eps before each step, for any source, at unchanged times."""
    evaluated = []

    def denoise(x, sigma):
        evaluated.append(x)
        return torch.zeros_like(x)

    sampler = Euler(steps=2, time_grid=Uniform(), perturbation=StateNoise(scale=0.1))
    model = DenoiserModel(Path(VE(t_max=4.0), D=D), denoise)
    sampler.sample(model, E0, noise=NOISE)
    assert [float(s) for s in model.sigmas] == [4.0, 2.0]
    torch.testing.assert_close(evaluated[0], 4.0 * E0 + 0.1 * 4.0 * NOISE(0, E0))
    torch.testing.assert_close(evaluated[1], 0.5 * evaluated[0] + 0.1 * 2.0 * NOISE(1, E0))


def test_state_noise_refuses():
    with pytest.raises(ValueError, match="scale is -1"):
        StateNoise(scale=-1.0)
    sampler = Euler(steps=2, time_grid=Uniform(), perturbation=StateNoise(scale=0.1))
    with pytest.raises(ValueError, match="StateNoise needs noise"):
        sampler.sample(on(VE()), E0)
