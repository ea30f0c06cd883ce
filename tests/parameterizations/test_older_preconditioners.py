"""EDM's columns VP, VE and iDDPM: the table, the carry-over to other paths, ranges, rounding."""

import math

import pytest
import torch
from torch import nn

from flowexp.models import FlowModel
from flowexp.parameterizations import (
    IDDPMPreconditioning,
    VEPreconditioning,
    VPPreconditioning,
)
from flowexp.paths import VE, VP, Cosine, Linear, Path, Trigonometric

F64 = torch.float64
SIGMA = torch.tensor([0.03, 0.5, 3.0, 60.0], dtype=F64)
PRECONDITIONERS = {
    "vp": VPPreconditioning(),
    "ve": VEPreconditioning(),
    "iddpm": IDDPMPreconditioning(),
}
every = pytest.mark.parametrize("name", PRECONDITIONERS)


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, c_noise):
        return torch.full_like(x, self.value)


def vp_time(sigma):
    """(M - 1) t(sigma) in EDM's notation."""
    beta_d, beta_min = 19.9, 0.1
    root = (beta_min**2 + 2 * beta_d * (1 + sigma**2).log()).sqrt()
    return 999 * (root - beta_min) / beta_d


TABLE = {
    "vp": (-1.0, lambda s: (s**2 + 1).rsqrt(), vp_time),
    "ve": (1.0, torch.ones_like, lambda s: (s / 2).log()),
    "iddpm": (-1.0, lambda s: (s**2 + 1).rsqrt(), None),
}


@every
def test_table_of_the_paper_on_the_ve_path(name):
    sign, c_in, c_noise = TABLE[name]
    c = VE().coefficients(SIGMA)
    inputs = PRECONDITIONERS[name].inputs(VE(), SIGMA, c)
    data = PRECONDITIONERS[name].conversion(c).data
    ones = torch.ones(4, 1, dtype=F64)
    F = PRECONDITIONERS[name].evaluate(Constant(1.0), ones, SIGMA, {})
    torch.testing.assert_close(inputs.c_in, c_in(SIGMA))
    torch.testing.assert_close(data.state, torch.ones_like(SIGMA))
    torch.testing.assert_close(data.output * F[:, 0], sign * SIGMA)
    if c_noise is not None:
        torch.testing.assert_close(inputs.c_noise, c_noise(SIGMA), rtol=1e-9, atol=1e-9)


@every
@pytest.mark.parametrize("schedule", [Linear(), VP(), Trigonometric(), Cosine()], ids=repr)
def test_network_and_denoiser_are_the_same_on_every_path(name, schedule):
    """c_in x_t, c_noise and D depend on (x_t / alpha, sigma / alpha) only."""
    parameterization = PRECONDITIONERS[name]
    state = torch.tensor([0.3, -1.0, 2.0, 15.0], dtype=F64)
    output = torch.tensor([0.7, 0.1, -1.3, 0.4], dtype=F64)
    there = VE().coefficients(SIGMA)
    on_ve = parameterization.inputs(VE(), SIGMA, there)
    t = schedule.time_at_nsr(SIGMA)
    c = schedule.coefficients(t)
    here = parameterization.inputs(schedule, t, c)
    torch.testing.assert_close(here.c_in * c.alpha * state, on_ve.c_in * state, rtol=1e-9, atol=0)
    torch.testing.assert_close(here.c_noise, on_ve.c_noise, rtol=1e-8, atol=1e-9)
    x_t, F = (c.alpha * state)[:, None], output[:, None]
    expected = parameterization.conversion(there).data(state[:, None], F)
    torch.testing.assert_close(parameterization.conversion(c).data(x_t, F), expected)


@every
def test_predictions_belong_to_one_line(name):
    """alpha x + sigma e is the state, alpha' x + sigma' e the velocity, whatever F."""
    schedule = Trigonometric()
    t = torch.tensor([0.05, 0.4, 0.9], dtype=F64)
    c = schedule.coefficients(t)
    rule = PRECONDITIONERS[name].conversion(c)
    rng = torch.Generator().manual_seed(0)
    x_t, F = torch.randn(2, 3, 5, generator=rng, dtype=F64)
    data, noise, velocity = rule.data(x_t, F), rule.noise(x_t, F), rule.velocity(x_t, F)
    line = c.alpha[:, None] * data + c.sigma[:, None] * noise
    torch.testing.assert_close(line, x_t)
    slope = c.d_alpha[:, None] * data + c.d_sigma[:, None] * noise
    torch.testing.assert_close(velocity, slope)


def test_input_of_vp_has_unit_variance_for_data_of_variance_one():
    c = Linear().coefficients(torch.tensor([0.1, 0.5, 0.9], dtype=F64))
    inputs = VPPreconditioning().inputs(Linear(), torch.empty(0), c)
    torch.testing.assert_close(inputs.c_in**2 * (c.alpha**2 + c.sigma**2), torch.ones_like(c.alpha))


def test_vp_preconditioning_on_the_vp_path_is_ddpm():
    """The input is not scaled, and the network receives 999 t."""
    t = torch.tensor([1e-5, 1e-3, 0.3, 1.0], dtype=F64)
    inputs = VPPreconditioning().inputs(VP(), t, VP().coefficients(t))
    torch.testing.assert_close(inputs.c_in, torch.ones_like(t), rtol=1e-12, atol=0)
    torch.testing.assert_close(inputs.c_noise, 999 * t, rtol=1e-9, atol=0)


def test_time_ranges():
    wide = VE(t_min=1e-12, t_max=1e12)
    low, high = VPPreconditioning().time_range(wide)
    assert low == pytest.approx(math.sqrt(math.expm1(1e-6 + 9.95e-10)), rel=1e-9)
    assert high == pytest.approx(152.16697, rel=1e-7)
    low, high = VPPreconditioning().time_range(VP())
    assert (low, high) == (pytest.approx(1e-5, rel=1e-6), pytest.approx(1.0, rel=1e-9))
    assert VEPreconditioning().time_range(wide) == (0.02, 100.0)
    assert VEPreconditioning().time_range(VE()) == (0.02, 80.0)
    low, high = IDDPMPreconditioning().time_range(wide)
    assert (low, high) == (pytest.approx(0.0064224, rel=1e-3), pytest.approx(20291.17, rel=1e-3))


def test_iddpm_levels_follow_their_recursion():
    iddpm = IDDPMPreconditioning()
    u = iddpm.levels.flip(0)
    assert u.shape == (1001,)
    assert u[-1] == 0.0
    assert (u[:-1] > u[1:]).all()
    bar = iddpm.alpha_bar(torch.arange(1001))
    ratio = (bar[:-1] / bar[1:]).clamp(min=1e-3)
    expected = ((u[1:] ** 2 + 1) / ratio - 1).clamp(min=0).sqrt()
    torch.testing.assert_close(u[:-1], expected, rtol=1e-9, atol=1e-12)
    # Away from the clip, abar is the squared signal of a variance-preserving path.
    kept = slice(10, 1000)
    torch.testing.assert_close(1 / (1 + u[kept] ** 2), bar[kept] / bar[1000], rtol=1e-9, atol=1e-12)


def test_iddpm_conditions_the_network_on_the_nearest_level():
    iddpm = IDDPMPreconditioning()
    path = VE(t_min=1e-6, t_max=1e6)
    u = iddpm.levels.flip(0)
    j = torch.tensor([0, 1, 9, 504, 998, 999])
    between = torch.lerp(u[j], u[j + 1], 0.4)
    for nsr in (u[j], between):
        assert torch.equal(iddpm.index(nsr), j)
        c_noise = iddpm.inputs(path, nsr, path.coefficients(nsr)).c_noise
        assert torch.equal(c_noise, 999.0 - j)
        torch.testing.assert_close(iddpm.nearest_time(path, nsr), u[j], rtol=1e-12, atol=0)
    # Above the largest level, and below half of the smallest: the code of EDM says -1 there.
    assert iddpm.index(torch.tensor([1e9, torch.inf, 0.003], dtype=F64)).tolist() == [0, 0, 1000]
    on_linear = iddpm.nearest_time(Linear(), Linear().time_at_nsr(between))
    torch.testing.assert_close(Linear().nsr(on_linear), u[j], rtol=1e-9, atol=0)


@pytest.mark.parametrize("schedule", [VE(), Linear(), VP(), Trigonometric(), Cosine()], ids=repr)
def test_iddpm_gives_one_time_per_level(schedule):
    """To the last bit, whatever the shape: samplers compare the times of neighbouring steps."""
    iddpm = IDDPMPreconditioning()
    low, high = iddpm.time_range(schedule)
    t = torch.linspace(low, high, 5003, dtype=F64)
    known = iddpm.nearest_time(schedule, t)
    assert (known.diff() >= 0).all()
    assert known.unique().numel() <= 1000
    assert torch.equal(iddpm.nearest_time(schedule, known), known)
    alone = torch.stack([iddpm.nearest_time(schedule, one) for one in t[::500]])
    assert torch.equal(alone, known[::500])
    assert float(iddpm.nearest_time(schedule, torch.zeros((), dtype=F64))) == 0.0


def test_other_preconditioners_know_every_level():
    t = torch.tensor([0.1, 0.7], dtype=F64)
    for name in ("vp", "ve"):
        assert torch.equal(PRECONDITIONERS[name].nearest_time(Linear(), t), t)


class Channels(torch.nn.Module):
    """Says a constant of its own in each channel."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, x, c_noise, **conditions):
        values = torch.arange(1.0, self.channels + 1.0)
        return values[None, :, None, None].expand(len(x), -1, *x.shape[2:])


@pytest.mark.parametrize("channels", [3, 6])
def test_iddpm_uses_the_first_channels_only(channels):
    model = FlowModel(
        Path(VE()), network=Channels(channels), parameterization=IDDPMPreconditioning()
    )
    x_t, t = torch.zeros(2, 3, 4, 4), torch.tensor([0.5, 2.0], dtype=F64)
    prediction = model.predict(x_t, t)
    assert prediction.noise.shape == prediction.velocity.shape == x_t.shape
    assert prediction.data[1, :, 0, 0].tolist() == [-2.0, -4.0, -6.0]
    assert prediction.noise[0, :, 0, 0].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: VPPreconditioning(time_steps=1), "time_steps is 1"),
        (lambda: VPPreconditioning(beta_min=0.0), "beta_min"),
        (lambda: VPPreconditioning(eps_t=0.0), "t_min is 0"),
        (lambda: VEPreconditioning(sigma_min=0.0), "sigma_min=0.0"),
        (lambda: VEPreconditioning(sigma_min=3.0, sigma_max=1.0), "sigma_max=1.0"),
        (lambda: IDDPMPreconditioning(C1=0.0), "C1 is 0.0"),
        (lambda: IDDPMPreconditioning(C2=-1.0), "C2 is -1.0"),
        (lambda: IDDPMPreconditioning(time_steps=1), "time_steps is 1"),
    ],
)
def test_impossible_arguments_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
