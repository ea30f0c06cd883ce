"""Every schedule: derivatives, Wronskian, inverse, ends, published values, bad input."""

import math

import pytest
import torch

from flowexp.paths import (
    VE,
    VP,
    Cosine,
    Linear,
    LinearVP,
    Polynomial,
    SubVP,
    Trigonometric,
    edm_sigmas,
)
from tests.paths.schedules import SCHEDULES, inner_times

every_schedule = pytest.mark.parametrize("name", SCHEDULES)
F64 = torch.float64


def gradient(f, t):
    t = t.clone().requires_grad_()
    (g,) = torch.autograd.grad(f(t).sum(), t, allow_unused=True, materialize_grads=True)
    return g


@every_schedule
def test_derivatives_equal_autograd(name):
    schedule = SCHEDULES[name]
    t = inner_times(schedule)
    c = schedule.coefficients(t)
    d_sigma = gradient(lambda s: schedule.coefficients(s).sigma, t)
    torch.testing.assert_close(c.d_sigma, d_sigma, rtol=1e-10, atol=1e-12)
    if schedule.coefficients(t.clone().requires_grad_()).alpha.requires_grad:
        d_alpha = gradient(lambda s: schedule.coefficients(s).alpha, t)
        torch.testing.assert_close(c.d_alpha, d_alpha, rtol=1e-10, atol=1e-12)
    else:
        assert torch.equal(c.d_alpha, torch.zeros_like(t))


@every_schedule
def test_wronskian_is_alpha_dsigma_minus_dalpha_sigma_and_positive(name):
    schedule = SCHEDULES[name]
    c = schedule.coefficients(inner_times(schedule))
    torch.testing.assert_close(
        c.wronskian, c.alpha * c.d_sigma - c.d_alpha * c.sigma, rtol=1e-10, atol=0
    )
    assert (c.wronskian > 0).all()


@every_schedule
def test_time_at_nsr_inverts_nsr_from_end_to_end(name):
    schedule = SCHEDULES[name]
    near_data = torch.logspace(math.log10(max(schedule.t_min, 1e-6)), -2, 9, dtype=F64)
    t = torch.cat([near_data, inner_times(schedule)])
    back = schedule.time_at_nsr(schedule.nsr(t))
    # Lipman's sigma_min = 1e-4 is subtracted from the ratio, which costs 1e-4/t of the digits.
    tolerance = 1e-9 if name == "lipman" else 1e-12
    torch.testing.assert_close(back, t, rtol=tolerance, atol=0)
    torch.testing.assert_close(
        schedule.time_at_log_snr(schedule.log_snr(t)), t, rtol=max(tolerance, 1e-11), atol=0
    )


@every_schedule
def test_nsr_grows_and_starts_at_the_data(name):
    schedule = SCHEDULES[name]
    t = torch.linspace(schedule.t_min, schedule.t_max, 400, dtype=F64)
    assert (schedule.nsr(t).diff() > 0).all()
    first = schedule.time_at_nsr(torch.zeros(1, dtype=F64))
    assert first.item() == 0.0
    assert not schedule.time_at_nsr(torch.tensor([torch.inf], dtype=F64)).isnan().any()


@pytest.mark.parametrize("schedule", [Linear(), Trigonometric(), Polynomial(n=1.0)])
def test_ends_are_exact(schedule):
    c = schedule.coefficients(torch.tensor([0.0, 1.0], dtype=F64))
    assert c.alpha.tolist() == [1.0, 0.0]
    assert c.sigma.tolist() == [0.0, 1.0]
    assert c.wronskian.isfinite().all()
    assert schedule.time_at_nsr(torch.tensor([0.0, torch.inf], dtype=F64)).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", ["vp", "linear_vp", "discrete_vp", "cosine", "trigonometric"])
def test_variance_preserving_paths_preserve_variance_near_the_data(name):
    t = torch.tensor([1e-5, 1e-3, 0.3, 0.9], dtype=F64)
    c = SCHEDULES[name].coefficients(t)
    torch.testing.assert_close(c.alpha**2 + c.sigma**2, torch.ones_like(t), rtol=1e-14, atol=0)


def test_published_values():
    vp = VP().nsr(torch.tensor([1.0, 1e-3, 1e-5], dtype=F64))
    # EDM's table of the VP preconditioner: sigma(1), sigma(1e-3), sigma(1e-5)
    torch.testing.assert_close(
        vp, torch.tensor([152.16697, 0.0104860, 1.0005e-3], dtype=F64), rtol=3e-5, atol=0
    )
    s = 0.008
    t = torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    f = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2 / math.cos(s / (1 + s) * math.pi / 2) ** 2
    torch.testing.assert_close(Cosine().coefficients(t).alpha ** 2, f, rtol=1e-12, atol=0)


def test_sub_vp_has_vp_mean_and_the_square_of_its_noise():
    t = torch.tensor([0.0, 1e-7, 1e-3, 0.3, 1.0], dtype=F64)
    vp, sub = VP().coefficients(t), SubVP(t_min=0.0).coefficients(t)
    torch.testing.assert_close(sub.alpha, vp.alpha, rtol=0, atol=0)
    torch.testing.assert_close(sub.sigma, vp.sigma**2, rtol=1e-14, atol=0)
    # finite at the data: sigma' = beta, and the standard deviation of N(0, 1) data never exceeds 1
    assert sub.d_sigma[0] == 0.1
    assert (sub.alpha**2 + sub.sigma**2 <= 1.0).all()


def test_edm_sigmas_are_the_published_grid():
    grid = edm_sigmas(18, sigma_min=0.002, sigma_max=80.0, rho=7.0)
    published = [80, 57.585985, 40.785574, 28.374585, 19.352453, 12.910082, 8.400935, 5.315195]
    torch.testing.assert_close(grid[:8], torch.tensor(published, dtype=F64), rtol=1e-6, atol=0)
    assert len(grid) == 19
    assert grid[-1] == 0.0
    torch.testing.assert_close(grid[17].item(), 0.002, rtol=1e-12, atol=0)
    assert edm_sigmas(1, sigma_min=0.002, sigma_max=80.0, rho=7.0)[1] == 0.0


def test_natural_grid_runs_from_start_to_end():
    for name, schedule in SCHEDULES.items():
        start = min(schedule.t_max, 0.99) if schedule.t_max <= 1.0 else 50.0
        grid = schedule.natural_grid(6, start, 0.0)
        assert len(grid) == 7, name
        assert (grid.diff() < 0).all(), name
        torch.testing.assert_close(grid[[0, -1]], torch.tensor([start, 0.0], dtype=F64))


def test_unit_time_of_ve_is_the_linear_path_at_equal_nsr():
    sigma = torch.tensor([0.002, 1.0, 80.0], dtype=F64)
    unit = VE().unit_time(sigma)
    torch.testing.assert_close(unit, Linear().time_at_nsr(sigma), rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Linear(sigma_min=1.0), "sigma_min"),
        (lambda: Linear(sigma_min=-0.1), "sigma_min"),
        (lambda: Linear(t_min=0.5, t_max=0.5), "t_min"),
        (lambda: Linear(t_min=-0.1), "t_min"),
        (lambda: VE(t_min=0.0), "t_min"),
        (lambda: VE(t_max=math.inf), "t_max"),
        (lambda: VP(t_min=0.0), "t_min"),
        (lambda: VP(beta_min=0.0), "beta_min"),
        (lambda: VP(beta_min=3.0, beta_max=2.0), "beta_max"),
        (lambda: SubVP(beta_min=3.0, beta_max=2.0), "beta_max"),
        (lambda: LinearVP(t_min=0.0), "t_min"),
        (lambda: Cosine(s=0.0), "s is"),
        (lambda: Cosine(t_min=0.0), "t_min"),
        (lambda: Polynomial(n=0.0), "n is"),
    ],
)
def test_impossible_arguments_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
