"""Networks of EDM's families read as flows on the linear path, their weights unchanged."""

import math

import pytest
import torch
from torch import nn

from flowexp.models import FlowModel
from flowexp.parameterizations import (
    EDMPreconditioning,
    VEPreconditioning,
    VPPreconditioning,
)
from flowexp.paths import VE, Linear, Path
from flowexp.samplers import EDMGrid, EDMHeun, Euler, Given

MEAN, STD, SIGMA_DATA = 0.2, 0.4, 0.5
TIMES = torch.tensor(
    [1e-3, 0.01, 0.1, 0.2, 0.25, 0.5, 0.8, 80 / 81, 0.999, 1 - 1e-4, 1 - 1e-5], dtype=torch.float64
)


def denoiser(y, sigma):
    """``E[x | x + sigma e = y]`` of N(MEAN, STD^2), and the noise ``(y - D) / sigma``."""
    q = STD**2 + sigma**2
    return (STD**2 * y + sigma**2 * MEAN) / q, sigma * (y - MEAN) / q


class Exact(nn.Module):
    """The raw network whose denoiser is exact; conditioned as a network of its family."""

    def __init__(self, level, output):
        super().__init__()
        self.level, self.output = level, output

    def forward(self, x, c_noise):
        sigma = self.level(c_noise.double())[:, None]
        return self.output(x.double(), sigma).float()


def edm_output(x, sigma):
    """F with ``D = c_skip y + c_out F``, from ``c_in y``; free of cancellation."""
    root = torch.sqrt(sigma**2 + SIGMA_DATA**2)
    y, q = x * root, STD**2 + sigma**2
    slope = sigma * (STD**2 - SIGMA_DATA**2) / (q * root * SIGMA_DATA)
    return slope * y + sigma * root * MEAN / (q * SIGMA_DATA)


def vp_level(c_noise):
    """sigma at the VP time ``c_noise / 999``."""
    t = c_noise / 999
    return torch.sqrt(torch.expm1(0.5 * 19.9 * t**2 + 0.1 * t))


FAMILIES = {
    "edm": (EDMPreconditioning(), lambda c: torch.exp(4 * c), edm_output),
    "ve": (
        VEPreconditioning(),
        lambda c: 2 * torch.exp(c),
        lambda y, sigma: -denoiser(y, sigma)[1],
    ),
    "vp": (
        VPPreconditioning(),
        vp_level,
        lambda x, sigma: denoiser(x * torch.sqrt(1 + sigma**2), sigma)[1],
    ),
}


def model_of(family, path=None):
    parameterization, level, output = FAMILIES[family]
    network = Exact(level, output)
    return FlowModel(path or Path(Linear()), network=network, parameterization=parameterization)


@pytest.mark.parametrize(("family", "last"), [("edm", 11), ("ve", 8), ("vp", 8)])
def test_velocity_in_float32_is_within_2e_5_of_the_exact_one(family, last):
    """VP's and VE's networks go up to sigma of about 150 and 100, EDM's is evaluated up to 1e5."""
    t = TIMES[:last]
    rng = torch.Generator().manual_seed(0)
    x = MEAN + STD * torch.randn(len(t), 16, generator=rng, dtype=torch.float64)
    e = torch.randn(len(t), 16, generator=rng, dtype=torch.float64)
    wide = t[:, None]
    x_t = ((1 - wide) * x + wide * e).float()
    state = x_t.double()
    q = (1 - wide) ** 2 * STD**2 + wide**2
    away = state - (1 - wide) * MEAN
    exact = wide / q * away - (MEAN + (1 - wide) * STD**2 / q * away)
    found = model_of(family).velocity(x_t, t).double()
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-5)


def test_closed_form_of_the_velocity():
    """``(1 + s) [x_t (s - sd^2)/(s^2 + sd^2) - sd F / sqrt(s^2 + sd^2)]``."""
    model = model_of("edm")
    x_t = torch.randn(len(TIMES), 5, generator=torch.Generator().manual_seed(1)).double()
    s = (TIMES / (1 - TIMES))[:, None]
    inputs = x_t / (1 - TIMES)[:, None] / torch.sqrt(s**2 + SIGMA_DATA**2)
    output = model.network(inputs.float(), 0.25 * torch.log(s[:, 0]).float()).double()
    q = s**2 + SIGMA_DATA**2
    closed = (1 + s) * (x_t * (s - SIGMA_DATA**2) / q - SIGMA_DATA * output / torch.sqrt(q))
    torch.testing.assert_close(model.velocity(x_t, TIMES), closed, rtol=1e-5, atol=2e-6)


def test_vp_networks_receive_the_time_of_their_noise_level():
    """``t_VP = (sqrt(b0^2 + 2 b1 ln(1 + sigma^2)) - b0) / b1``."""
    schedule = Linear()
    c = schedule.coefficients(TIMES[:8])
    inputs = VPPreconditioning().inputs(schedule, TIMES[:8], c)
    sigma = TIMES[:8] / (1 - TIMES[:8])
    b0, b1 = 0.1, 19.9
    time = (torch.sqrt(b0**2 + 2 * b1 * torch.log1p(sigma**2)) - b0) / b1
    torch.testing.assert_close(inputs.c_noise, 999 * time, rtol=1e-10, atol=0)
    scale = 1 / torch.sqrt((1 - TIMES[:8]) ** 2 + TIMES[:8] ** 2)
    torch.testing.assert_close(inputs.c_in, scale)


@pytest.mark.parametrize("steps", [1, 2, 18])
def test_euler_on_the_linear_path_is_edms_euler(steps):
    """On ``t = sigma / (1 + sigma)`` from ``(80/81) e`` both take the same steps, to rounding."""
    grid = EDMGrid()
    edm = model_of("edm", Path(VE()))
    sigmas = grid.times(edm, steps)
    e = torch.randn(6, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    states = {"edm": [], "linear": []}
    there = Euler(steps=steps, time_grid=grid).sample(
        edm, e, on_step=lambda t, x: states["edm"].append(x)
    )
    times = (sigmas / (1 + sigmas)).tolist()
    here = Euler(steps=steps, time_grid=Given(values=times)).sample(
        model_of("edm"), e, on_step=lambda t, x: states["linear"].append(x)
    )
    torch.testing.assert_close(states["linear"][0], 80 / 81 * e)
    for sigma, y, x_t in zip(sigmas, states["edm"], states["linear"], strict=True):
        torch.testing.assert_close(x_t, y / (1 + sigma), rtol=0, atol=2e-6)
    torch.testing.assert_close(here.x, there.x, rtol=0, atol=2e-6)


def test_heun_does_not_coincide_unless_it_steps_in_the_noise_level():
    e = torch.randn(6, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sampler = EDMHeun(steps=6, time_grid=EDMGrid())
    there = sampler.sample(model_of("edm", Path(VE())), e).x
    here = sampler.sample(model_of("edm"), e).x
    torch.testing.assert_close(here, there, rtol=0, atol=5e-6)
    assert math.isclose(80 / 81, float(sampler.times(model_of("edm"))[0]), rel_tol=1e-12)
