"""EDM's preconditioning: its table, its carry-over to other paths, float32 accuracy, time range."""

import pytest
import torch

from flowexp.parameterizations import EDMPreconditioning
from flowexp.paths import VE, VP, Linear, Path, Prediction, Trigonometric

F64 = torch.float64


def column(v):
    return v[:, None]


def test_table_of_the_paper_on_the_ve_path():
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=F64)
    c = VE().coefficients(sigma)
    precond = EDMPreconditioning(sigma_data=0.5)
    inputs = precond.inputs(VE(), sigma, c)
    data = precond.conversion(c).data
    root = (sigma**2 + 0.25).sqrt()
    torch.testing.assert_close(inputs.c_in, 1 / root)
    torch.testing.assert_close(inputs.c_noise, sigma.log() / 4)
    torch.testing.assert_close(data.state, 0.25 / root**2)
    torch.testing.assert_close(data.output, sigma * 0.5 / root)


@pytest.mark.parametrize("schedule", [Linear(), VP(), Trigonometric()])
def test_network_sees_the_same_input_on_every_path(schedule):
    """c_in x_t and c_noise depend on (x_t / alpha, sigma / alpha) only."""
    nsr = torch.tensor([0.01, 0.5, 20.0], dtype=F64)
    state = torch.tensor([0.3, -1.0, 15.0], dtype=F64)
    precond = EDMPreconditioning()
    on_ve = precond.inputs(VE(), nsr, VE().coefficients(nsr))
    t = schedule.time_at_nsr(nsr)
    c = schedule.coefficients(t)
    here = precond.inputs(schedule, t, c)
    torch.testing.assert_close(here.c_in * c.alpha * state, on_ve.c_in * state, rtol=1e-9, atol=0)
    torch.testing.assert_close(here.c_noise, on_ve.c_noise, rtol=1e-9, atol=1e-12)


def test_input_has_unit_variance():
    precond = EDMPreconditioning(sigma_data=0.5)
    t = torch.tensor([1e-4, 0.3, 0.7, 1.0], dtype=F64)
    c = Linear().coefficients(t)
    c_in = precond.inputs(Linear(), t, c).c_in
    torch.testing.assert_close(c_in**2 * (c.alpha**2 * 0.25 + c.sigma**2), torch.ones_like(t))


TIMES = {
    "linear": (Linear(), torch.cat([torch.logspace(-3, -0.1, 60), 1 - torch.logspace(-5, -1, 60)])),
    "ve": (VE(), torch.logspace(-2.7, 1.9, 120)),
    "vp": (VP(), torch.cat([torch.logspace(-5, -0.1, 60), 1 - torch.logspace(-5, -1, 60)])),
    "trigonometric": (Trigonometric(), 1 - torch.logspace(-5, -0.001, 120)),
}


@pytest.mark.parametrize("name", TIMES)
def test_velocity_is_accurate_in_float32_near_both_ends(name):
    schedule, t = TIMES[name]
    t = t.double()
    rng = torch.Generator().manual_seed(0)
    x = 0.5 * torch.randn(len(t), 64, generator=rng, dtype=F64)
    e = torch.randn(len(t), 64, generator=rng, dtype=F64)
    path, sd = Path(schedule), 0.5
    point = path.point(x, e, t)
    c = schedule.coefficients(t)
    # F* = (sigma x / sd - alpha sd e) / sqrt(alpha^2 sd^2 + sigma^2): EDM's effective target
    root = (c.alpha**2 * sd**2 + c.sigma**2).sqrt()
    target = (column(c.sigma / sd) * x - column(c.alpha * sd) * e) / column(root)
    conversion = EDMPreconditioning(sigma_data=sd).conversion(c)
    velocity = Prediction(path, point.x_t.float(), target.float(), conversion).velocity
    scale = column((c.d_alpha**2 + c.d_sigma**2).sqrt().clamp(min=1.0))
    error = ((velocity.double() - point.velocity) / scale).abs().max()
    assert error < 2e-5


def test_naive_velocity_would_not_be():
    """The form (x_t - D) / t loses 1e-7 / t: the reason for the written-out coefficients."""
    t = torch.tensor([1e-3], dtype=F64)
    x, e = torch.full((1, 64), 0.7, dtype=F64), torch.linspace(-3, 3, 64, dtype=F64)[None]
    x_t = Path(Linear()).point(x, e, t).x_t
    naive = (x_t.float() - x.float()) / t.float()
    assert (naive.double() - (e - x)).abs().max() > 2e-5


def test_time_range_is_where_edm_was_trained():
    low, high = EDMPreconditioning().time_range(Linear())
    assert low == pytest.approx(0.002 / 1.002, rel=1e-12)
    assert high == pytest.approx(80 / 81, rel=1e-12)
    assert EDMPreconditioning().time_range(VE(t_min=0.01, t_max=50.0)) == (0.01, 50.0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sigma_data": 0.0}, "sigma_data"),
        ({"sigma_min": 0.0}, "sigma_min"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_max"),
    ],
)
def test_impossible_arguments_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        EDMPreconditioning(**options)
