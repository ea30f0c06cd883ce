import math

import pytest
import torch

from flowexp.paths import VE, VP, Cosine, Linear, Path, StudentT, Trigonometric
from flowexp.samplers import Churn, EDMGrid, EDMHeun, Heun
from flowexp.seeding import SampleNoise
from tests.samplers.closed_forms import (
    DenoiserModel,
    GaussianModel,
    finite_set_denoiser,
    mixture_denoiser,
)

DENOISER = mixture_denoiser([0.3, 0.7], [[0.5, -0.4], [-0.6, 0.2]], [0.2, 0.3])
E0 = torch.tensor([[1.0, -0.5], [-1.2, 0.8]], dtype=torch.float64)
OTHERS = {
    "linear": Linear(),
    "vp": VP(),
    "trigonometric": Trigonometric(),
    "cosine": Cosine(),
}
CHURN = {"S_churn": 5.0, "S_min": 0.05, "S_max": 10.0, "S_noise": 1.003}


def sampled(schedule, e, **options):
    grid = EDMGrid(sigma_max=40.0)
    model = DenoiserModel(Path(schedule), DENOISER)
    return EDMHeun(steps=9, time_grid=grid, **options).sample(model, e, noise=SampleNoise([5, 9])).x


@pytest.mark.parametrize("options", [{}, CHURN], ids=["deterministic", "churn"])
@pytest.mark.parametrize("schedule", OTHERS.values(), ids=OTHERS)
def test_same_samples_on_every_path(schedule, options):
    t = schedule.time_at_nsr(torch.tensor(40.0, dtype=torch.float64))
    c = schedule.coefficients(t)
    e = E0 * 40.0 * c.alpha / c.sigma
    torch.testing.assert_close(
        sampled(schedule, e, **options), sampled(VE(), E0, **options), rtol=0, atol=1e-10
    )


def test_on_the_ve_path_it_is_heun_in_time():
    model = DenoiserModel(Path(VE()), DENOISER)
    in_nsr = EDMHeun(steps=9, time_grid=EDMGrid()).sample(model, E0).x
    in_time = Heun(steps=9, time_grid=EDMGrid()).sample(model, E0).x
    torch.testing.assert_close(in_nsr, in_time, rtol=0, atol=1e-12)


def test_infinite_degrees_of_freedom_are_gaussian():
    """D = inf is the Gaussian path bit for bit; a huge D its limit."""
    points = torch.tensor([[0.5, -0.4], [-0.6, 0.2]], dtype=torch.float64)
    results = {}
    for D in (math.inf, 1e9):
        path = Path(VE(), D=D)
        e = path.source.sample((4, 2), rng=torch.Generator().manual_seed(0), dtype=torch.float64)
        model = DenoiserModel(path, finite_set_denoiser(points, D=D))
        results[D] = EDMHeun(steps=8, time_grid=EDMGrid()).sample(model, e).x
    plain = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = DenoiserModel(Path(VE()), finite_set_denoiser(points, D=math.inf))
    gaussian = EDMHeun(steps=8, time_grid=EDMGrid()).sample(model, plain).x
    assert torch.equal(results[math.inf], gaussian)
    torch.testing.assert_close(results[1e9], gaussian, rtol=0, atol=1e-3)


def test_churn_is_refused_for_a_student_source():
    model = DenoiserModel(Path(VE(), source=StudentT(128.0)), DENOISER)
    with pytest.raises(ValueError, match=r"S_churn=1.*StudentT source of path\.D=128"):
        EDMHeun(steps=4, time_grid=EDMGrid(), S_churn=1.0).sample(
            model, E0, noise=SampleNoise([0, 1])
        )
    samples = EDMHeun(steps=4, time_grid=EDMGrid()).sample(model, E0)
    assert torch.isfinite(samples.x).all()


def test_churn_needs_noise_and_sound_settings():
    model = DenoiserModel(Path(VE()), DENOISER)
    with pytest.raises(ValueError, match="noise is None"):
        EDMHeun(steps=4, time_grid=EDMGrid(), S_churn=1.0).sample(model, E0)
    with pytest.raises(ValueError, match="S_min=3"):
        EDMHeun(steps=4, time_grid=EDMGrid(), S_min=3.0, S_max=1.0)
    with pytest.raises(ValueError, match="S_churn, S_noise >= 0"):
        Churn(S_churn=-1.0)


def test_churn_of_a_sample_does_not_depend_on_its_batch():
    model = DenoiserModel(Path(VE()), DENOISER)
    sampler = EDMHeun(steps=6, time_grid=EDMGrid(), S_churn=20.0)
    together = sampler.sample(model, E0, noise=SampleNoise([7, 8])).x
    alone = sampler.sample(model, E0[1:], noise=SampleNoise([8])).x
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-13)


@pytest.mark.statistical
@pytest.mark.parametrize("schedule", [VE(), Linear()], ids=["ve", "linear"])
def test_churn_keeps_the_law(schedule):
    """Gaussian data, 6000 samples: within 5 standard errors (false alarm below 1e-5) plus bias."""
    n, mean = 6000, torch.tensor([[0.4]], dtype=torch.float64)
    model = GaussianModel(Path(schedule), mean=mean, std=0.5, time_range=(1e-3, schedule.t_max))

    def noise(step, like):
        rng = torch.Generator().manual_seed(step)
        return torch.randn(like.shape, dtype=like.dtype, generator=rng)

    e = torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    sampler = EDMHeun(steps=60, time_grid=EDMGrid(), S_churn=20.0)
    x = sampler.sample(model, e, noise=noise).x
    bias = 0.01
    assert abs(float(x.mean()) - 0.4) < 5 * 0.5 / math.sqrt(n) + bias
    assert abs(float(x.std()) - 0.5) < 5 * 0.5 / math.sqrt(2 * n) + bias
