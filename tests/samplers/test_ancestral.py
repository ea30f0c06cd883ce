"""Ancestral sampling: DDPM's own formulas, DDIM, score-SDE's predictor and corrector, bad input."""

import math

import pytest
import torch

from flowexp.paths import VE, VP, DiscreteVP, Linear, Path, Trigonometric
from flowexp.samplers import DDIM, Ancestral, LogSNR, Uniform
from flowexp.seeding import SampleNoise
from tests.samplers.closed_forms import DenoiserModel, GaussianModel, mixture_denoiser

F64 = torch.float64
DENOISER = mixture_denoiser([0.3, 0.7], [[0.5, -0.4], [-0.6, 0.2]], [0.2, 0.3])
E0 = torch.tensor([[1.0, -0.5], [-1.2, 0.8], [0.3, 2.0]], dtype=F64)
NOISE = SampleNoise([4, 5, 6])
PATHS = {"linear": Linear(), "ve": VE(), "vp": VP(), "trigonometric": Trigonometric()}
GRID = LogSNR(sigma_min=0.02, sigma_max=20.0)


@pytest.mark.parametrize("schedule", PATHS.values(), ids=PATHS)
def test_with_the_posteriors_variance_it_is_ddim_with_eta_one(schedule):
    model = DenoiserModel(Path(schedule), DENOISER)
    found = Ancestral(steps=7, time_grid=GRID, large=False, clip=None).sample(
        model, E0, noise=NOISE
    )
    ddim = DDIM(steps=7, time_grid=GRID, eta=1.0).sample(model, E0, noise=NOISE)
    torch.testing.assert_close(found.x, ddim.x, rtol=0, atol=1e-11)
    assert found.nfe.tolist() == [7, 7, 7]


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_every_step_has_ddpms_coefficients(large, clip):
    """Ho et al., eq. 4 and 7, in their own variables."""
    schedule = DiscreteVP(beta_start=0.01, beta_end=0.3, p=1.0, time_steps=20)
    model = DenoiserModel(Path(schedule), DENOISER)
    abar = schedule.alphas_cumprod
    before = torch.cat([torch.ones(1, dtype=F64), abar[:-1]])
    beta = 1.0 - abar / before
    x = torch.sqrt(1.0 - abar[-1]) * E0
    for i, k in enumerate(reversed(range(20))):
        D = model.denoise(x, schedule.time_of(torch.tensor(k)))
        D = D if clip is None else D.clamp(-clip, clip)
        mean = beta[k] * before[k].sqrt() / (1 - abar[k]) * D
        mean = mean + (1 - before[k]) * (1 - beta[k]).sqrt() / (1 - abar[k]) * x
        variance = beta[k] if large else beta[k] * (1 - before[k]) / (1 - abar[k])
        x = mean + (variance.sqrt() * NOISE(i, x) if k else 0.0)
    sampler = Ancestral(steps=20, time_grid=Uniform(), large=large, clip=clip)
    torch.testing.assert_close(sampler.sample(model, E0, noise=NOISE).x, x, rtol=0, atol=1e-11)


def test_on_ve_it_is_reverse_diffusion_after_a_langevin_step():
    """Song et al., algorithms 2 and 4: geometric levels, each evaluated twice."""
    model, steps, snr = DenoiserModel(Path(VE(t_min=0.02)), DENOISER), 6, 0.16
    sigmas = [*GRID.levels(steps, sigma_min=0.02, sigma_max=20.0).tolist(), 0.0]

    def score(x, sigma):
        return (model.denoise(x, torch.tensor(sigma, dtype=F64)) - x) / sigma**2

    x = sigmas[0] * E0
    for i in range(steps):
        eps, s = NOISE(steps + i, x), score(x, sigmas[i])
        h = 2 * (snr * eps.norm(dim=1) / s.norm(dim=1))[:, None] ** 2
        x = x + h * s + (2 * h).sqrt() * eps
        G2 = sigmas[i] ** 2 - sigmas[i + 1] ** 2
        x = x + G2 * score(x, sigmas[i])
        if i < steps - 1:
            x = x + math.sqrt(G2) * NOISE(i, x)
    sampler = Ancestral(steps=steps, time_grid=GRID, clip=None, snr=snr)
    found = sampler.sample(model, E0, noise=NOISE)
    torch.testing.assert_close(found.x, x, rtol=0, atol=1e-10)
    assert found.nfe.tolist() == [2 * steps] * 3


@pytest.mark.parametrize("snr", [None, 0.1])
def test_samples_have_the_datas_variance(snr):
    """40 samples of N(0, 0.5^2) in 400 dimensions; the deviation of the estimate is 0.6 %."""
    model = GaussianModel(Path(VE()), mean=torch.zeros(1, 400, dtype=F64), std=0.5)
    sampler = Ancestral(steps=100, time_grid=LogSNR(), clip=None, snr=snr)
    rng = torch.Generator().manual_seed(1)

    def draw(_, z):
        return torch.randn(z.shape, generator=rng, dtype=F64)

    x = sampler.sample(model, draw(0, torch.empty(40, 400)), noise=draw).x
    assert x.std().item() == pytest.approx(0.5, rel=0.05)


def test_a_sample_does_not_depend_on_its_batch():
    model = DenoiserModel(Path(VE()), DENOISER)
    sampler = Ancestral(steps=5, time_grid=GRID, clip=None, snr=0.16)
    together = sampler.sample(model, E0, noise=NOISE).x
    alone = sampler.sample(model, E0[1:2], noise=SampleNoise([5])).x
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bad", [{"clip": 0.0}, {"snr": -0.1}])
def test_impossible_arguments_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Ancestral(steps=3, **bad)
