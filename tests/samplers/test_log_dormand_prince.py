"""The adaptive sampler in the logarithm of the noise level."""

import pytest
import torch

from flowexp.paths import VE, VP, Linear, Path
from flowexp.samplers import EDMGrid, LogDormandPrince, LogSNR
from flowexp.samplers.runge_kutta import Heun
from flowexp.seeding import generator
from tests.samplers.closed_forms import DenoiserModel, GaussianModel, finite_set_denoiser


def normal(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize(
    ("schedule", "limits"),
    [
        (VE(t_min=1e-3, t_max=40.0), (1e-3, 40.0)),
        (Linear(), (1e-3, 80.0)),
        (VP(), (0.01, 80.0)),
    ],
)
@pytest.mark.parametrize("per_sample", [True, False])
def test_follows_the_flow_of_gaussian_data(schedule, limits, per_sample):
    path = Path(schedule)
    model = GaussianModel(path, mean=torch.tensor([0.3, -1.0], dtype=torch.float64), std=0.7)
    e = normal(5, 2)
    sampler = LogDormandPrince(
        rtol=1e-9, atol=1e-9, sigma_min=limits[0], sigma_max=limits[1], per_sample=per_sample
    )
    samples = sampler.sample(model, e)
    start, end = schedule.time_at_nsr(torch.tensor(limits[::-1], dtype=torch.float64)).tolist()
    begin = path.start(e, torch.tensor(start, dtype=torch.float64))
    expected = model.exact(begin, start, end)
    torch.testing.assert_close(samples.x, expected, rtol=0, atol=1e-6)


def test_stays_within_the_range_of_the_model_and_counts():
    path = Path(VE(t_min=1e-3, t_max=40.0), D=1)
    model = DenoiserModel(path, finite_set_denoiser(normal(4, 3), D=1.0))
    e = path.source.prior((1, 3), rng=generator(0, "latents"), dtype=torch.float64)
    seen = []
    samples = LogDormandPrince().sample(model, e, on_step=lambda t, x: seen.append((t, x)))
    assert int(samples.nfe) == len(model.sigmas)
    levels = torch.stack([s.reshape(()) for s in model.sigmas])
    assert float(levels.max()) == pytest.approx(40.0)
    assert float(levels.min()) == pytest.approx(1e-3)
    assert float(seen[0][0]) == pytest.approx(40.0)
    torch.testing.assert_close(seen[0][1], 40.0 * e)
    torch.testing.assert_close(seen[-1][1], samples.x)


def test_ends_near_the_data_at_the_published_tolerance_and_on_them_when_denoised():
    points = normal(5, 3, 4, 4)
    path = Path(VE(t_min=1e-3, t_max=40.0), D=1)
    model = DenoiserModel(path, finite_set_denoiser(points, D=1.0))
    e = path.source.prior((8, 3, 4, 4), rng=generator(0, "latents"), dtype=torch.float64)
    for denoise, tolerance in ((False, 0.1), (True, 1e-4)):
        samples = LogDormandPrince(denoise_at_end=denoise).sample(model, e)
        distance = torch.cdist(samples.x.flatten(1), points.flatten(1)).min(1).values
        assert float(distance.max()) < tolerance
        assert samples.nfe.max() < 400


def test_agrees_with_improved_euler_on_geometric_levels():
    points = normal(5, 4)
    path = Path(VE(t_min=1e-3, t_max=40.0), D=1)
    model = DenoiserModel(path, finite_set_denoiser(points, D=1.0))
    e = path.source.sample((6, 4), rng=generator(0, "latents"), dtype=torch.float64)
    grid = LogSNR(sigma_min=1e-3, sigma_max=40.0, to_zero=False)
    fixed = Heun(steps=2000, time_grid=grid).sample(model, e).x
    torch.testing.assert_close(
        LogDormandPrince(rtol=1e-8, atol=1e-8).sample(model, e).x, fixed, rtol=0, atol=1e-3
    )


def test_per_sample_steps_do_not_depend_on_the_batch():
    path = Path(VE(), D=8)
    model = DenoiserModel(path, finite_set_denoiser(normal(5, 4), D=8.0))
    e = path.source.sample((4, 4), rng=generator(0, "latents"), dtype=torch.float64)
    whole = LogDormandPrince().sample(model, e)
    alone = LogDormandPrince().sample(model, e[2:3])
    torch.testing.assert_close(whole.x[2:3], alone.x, rtol=0, atol=1e-10)
    assert whole.nfe[2] == alone.nfe[0]


def test_refuses_a_model_without_these_levels():
    model = DenoiserModel(Path(VE(t_min=2.0, t_max=3.0)), lambda x, s: x)
    with pytest.raises(ValueError, match="the model covers only"):
        LogDormandPrince(sigma_min=0.1, sigma_max=1.0).check(model)
    LogDormandPrince(sigma_min=0.1, sigma_max=2.5).check(model)
    assert EDMGrid().sigma_max == 80.0


@pytest.mark.parametrize("bad", [{"rtol": 0.0}, {"atol": -1.0}, {"max_steps": 0}, {"sigma_min": 0}])
def test_bad_arguments_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LogDormandPrince(**bad)
