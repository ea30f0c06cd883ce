import math
from itertools import pairwise

import pytest
import torch

from flowexp.paths import VE, VP, Linear, Path, StudentT, Trigonometric
from flowexp.samplers import DDIM, EDMGrid, Euler, LogSNR, NoiseToSignal, Uniform
from flowexp.seeding import SampleNoise
from tests.samplers.closed_forms import DenoiserModel, GaussianModel, mixture_denoiser

DENOISER = mixture_denoiser([0.3, 0.7], [[0.5, -0.4], [-0.6, 0.2]], [0.2, 0.3])
GRID = EDMGrid(sigma_min=0.01, sigma_max=20.0)
E0 = torch.tensor([[1.0, -0.5], [-1.2, 0.8]], dtype=torch.float64)
PATHS = {"linear": Linear(), "ve": VE(), "vp": VP(), "trigonometric": Trigonometric()}


def model_on(schedule):
    return DenoiserModel(Path(schedule), DENOISER)


def start_of(schedule, steps=6):
    """Source draws that start every path at the same x/alpha."""
    t = GRID.times(model_on(schedule), steps)[0]
    c = schedule.coefficients(t)
    return E0 * 20.0 * c.alpha / c.sigma


@pytest.mark.parametrize("schedule", PATHS.values(), ids=PATHS)
def test_equals_euler_in_noise_to_signal(schedule):
    e = start_of(schedule)
    ddim = DDIM(steps=6, time_grid=GRID).sample(model_on(schedule), e).x
    euler = Euler(steps=6, time_grid=GRID, variable=NoiseToSignal()).sample(model_on(schedule), e).x
    torch.testing.assert_close(ddim, euler, rtol=0, atol=1e-11)


@pytest.mark.parametrize("schedule", PATHS.values(), ids=PATHS)
def test_equals_euler_on_the_ve_path(schedule):
    ddim = DDIM(steps=6, time_grid=GRID).sample(model_on(schedule), start_of(schedule)).x
    euler = Euler(steps=6, time_grid=GRID).sample(model_on(VE()), start_of(VE())).x
    torch.testing.assert_close(ddim, euler, rtol=0, atol=1e-11)


@pytest.mark.parametrize("schedule", PATHS.values(), ids=PATHS)
def test_equals_first_order_dpm_solver(schedule):
    """``(sigma'/sigma) x - alpha' (exp(-h) - 1) D`` with ``h`` the gain in log(alpha/sigma)."""
    model, grid = model_on(schedule), LogSNR(sigma_min=0.01, sigma_max=20.0, to_zero=False)
    times = grid.times(model, 5)
    x = model.path.start(E0, times[0])
    for t, t_next in pairwise(times):
        c, c_next = schedule.coefficients(t), schedule.coefficients(t_next)
        h = torch.log(c_next.alpha / c_next.sigma) - torch.log(c.alpha / c.sigma)
        D = model.denoise(x, t)
        x = c_next.sigma / c.sigma * x - c_next.alpha * torch.expm1(-h) * D
    sampled = DDIM(steps=5, time_grid=grid).sample(model, E0).x
    torch.testing.assert_close(sampled, x, rtol=0, atol=1e-11)


def test_equals_plain_euler_on_the_linear_path():
    model = GaussianModel(Path(Linear()), mean=torch.zeros(1, 2, dtype=torch.float64), std=0.5)
    ddim = DDIM(steps=7, time_grid=Uniform()).sample(model, E0).x
    euler = Euler(steps=7, time_grid=Uniform()).sample(model, E0).x
    torch.testing.assert_close(ddim, euler, rtol=0, atol=1e-12)


def test_differs_from_euler_in_time_on_the_vp_path():
    model = model_on(VP())
    ddim = DDIM(steps=6, time_grid=GRID).sample(model, E0).x
    euler = Euler(steps=6, time_grid=GRID).sample(model, E0).x
    assert float((ddim - euler).abs().max()) > 1e-2


@pytest.mark.parametrize("schedule", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_exact_for_a_point_mass(schedule, steps):
    point = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    model = DenoiserModel(Path(schedule), lambda x, _: point.expand_as(x))
    x = DDIM(steps=steps, time_grid=GRID).sample(model, E0).x
    torch.testing.assert_close(x, point.expand_as(x), rtol=0, atol=1e-13)


def test_starts_where_alpha_is_zero():
    model = GaussianModel(Path(Linear()), mean=torch.ones(1, 2, dtype=torch.float64), std=0.5)
    x = DDIM(steps=400, time_grid=Uniform()).sample(model, E0).x
    exact = model.exact(E0, 1.0, 0.0)
    torch.testing.assert_close(x, exact, rtol=0, atol=1e-2)


@pytest.mark.statistical
@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("schedule", PATHS.values(), ids=PATHS)
def test_stochastic_sampling_keeps_the_law(schedule, eta):
    """Gaussian data: mean and deviation within 5 standard errors (false alarm < 1e-5) + bias."""
    mean = torch.tensor([[0.4]], dtype=torch.float64)
    model = GaussianModel(Path(schedule), mean=mean, std=0.5, time_range=(1e-4, schedule.t_max))
    n = 4000
    e = torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    class Shared:
        def __call__(self, step, like):
            rng = torch.Generator().manual_seed(100 + step)
            return torch.randn(like.shape, dtype=like.dtype, generator=rng)

    sampler = DDIM(steps=200, time_grid=EDMGrid(sigma_min=0.005, sigma_max=50.0), eta=eta)
    x = sampler.sample(model, e, noise=Shared()).x
    bias = 0.015  # 200 steps, and the source's own mean at sigma/alpha = 50
    assert abs(float(x.mean()) - 0.4) < 5 * 0.5 / math.sqrt(n) + bias
    assert abs(float(x.std()) - 0.5) < 5 * 0.5 / math.sqrt(2 * n) + bias


def test_stochastic_needs_gaussian_source_and_noise():
    sampler = DDIM(steps=3, time_grid=GRID, eta=1.0)
    model = DenoiserModel(Path(VE(), source=StudentT(4.0)), DENOISER)
    with pytest.raises(ValueError, match=r"DDIM.*StudentT source of path\.D=4"):
        sampler.sample(model, E0, noise=SampleNoise([0, 1]))
    with pytest.raises(ValueError, match="noise is None"):
        sampler.sample(model_on(VE()), E0)
    with pytest.raises(ValueError, match=r"eta is 1\.5"):
        DDIM(steps=3, time_grid=GRID, eta=1.5)
