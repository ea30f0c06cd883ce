"""Order of convergence of every solver on every path, against the exact flow of Gaussian data."""

import math

import pytest
import torch

from flowexp.paths import VE, VP, Cosine, Linear, Path, Trigonometric
from flowexp.samplers import (
    DDIM,
    DEIS,
    DPM2,
    IPNDM,
    RK4,
    AdamsBashforth,
    DormandPrince,
    EDMHeun,
    Euler,
    Heun,
    Heun3,
    LogSNR,
    Midpoint,
    Natural,
    NoiseToSignal,
    Ralston,
    SecondOrder,
    ThreeEighths,
    Uniform,
)
from tests.samplers.closed_forms import GaussianModel

# Smooth stretches: sigma' is infinite at t = 0 of VP and cosine, nsr at t = 1 of the others. Long
# stretches of the linear path cancel the leading error of fourth-order methods.
PATHS = {
    "linear": (Linear(), (0.05, 0.6)),
    "ve": (VE(), (0.05, 12.0)),
    "vp": (VP(), (0.05, 0.8)),
    "trigonometric": (Trigonometric(), (0.05, 0.95)),
    "cosine": (Cosine(), (0.05, 0.95)),
}
IN_TIME = {
    "euler": (Euler, 1),
    "midpoint": (Midpoint, 2),
    "heun": (Heun, 2),
    "ralston": (Ralston, 2),
    "second_order": (lambda **kw: SecondOrder(alpha=0.8, **kw), 2),
    "heun3": (Heun3, 3),
    "rk4": (RK4, 4),
    "three_eighths": (ThreeEighths, 4),
    "ab1": (lambda **kw: AdamsBashforth(order=1, **kw), 1),
    "ab2": (lambda **kw: AdamsBashforth(order=2, **kw), 2),
}
IN_NSR = {
    "ddim": (DDIM, 1),
    "edm_heun": (EDMHeun, 2),
    "dpm2": (DPM2, 2),
    "dpm2_r": (lambda **kw: DPM2(r=0.7, **kw), 2),
    "ipndm2": (lambda **kw: IPNDM(order=2, **kw), 2),
    "deis2": (lambda **kw: DEIS(order=2, **kw), 2),
    "rk4_nsr": (lambda **kw: RK4(variable=NoiseToSignal(), **kw), 4),
    "ab2_nsr": (lambda **kw: AdamsBashforth(order=2, variable=NoiseToSignal(), **kw), 2),
}
SOLVERS = IN_TIME | IN_NSR
# Where S^2 = alpha^2 std^2 + sigma^2 is quadratic in t, a = S'/S has a'' + 6 a a' + 4 a^3 = 0,
# which is the midpoint rule's leading error term on x' = a x: it gains an order.
GAINS_AN_ORDER = {("linear", "midpoint"), ("ve", "midpoint")}


def setting(name):
    schedule, (low, high) = PATHS[name]
    mean = torch.tensor([[0.4, -0.3, 0.1]], dtype=torch.float64)
    model = GaussianModel(Path(schedule), mean=mean, std=0.5, time_range=(low, high))
    e = torch.tensor([[1.0, -0.5, 0.3], [-1.2, 0.8, 0.1]], dtype=torch.float64)
    start = model.path.start(e, torch.tensor(high, dtype=torch.float64))
    return model, e, model.exact(start, high, low)


def grid_for(path_name, solver_name, model):
    if path_name != "ve" and solver_name in IN_TIME:
        return Uniform(t_end=model.time_range[0])
    low, high = model.path.schedule.nsr(torch.tensor(model.time_range)).tolist()
    return LogSNR(sigma_min=low, sigma_max=high, to_zero=False)


def error(path_name, solver_name, steps):
    model, e, exact = setting(path_name)
    solver = SOLVERS[solver_name][0]
    sampler = solver(steps=steps, time_grid=grid_for(path_name, solver_name, model))
    return float((sampler.sample(model, e).x - exact).abs().max())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("path", PATHS)
def test_order(path, solver):
    order = SOLVERS[solver][1]
    coarse = {1: 256, 2: 64, 3: 64, 4: 32}[order]
    errors = [error(path, solver, steps) for steps in (coarse, 2 * coarse)]
    slope = math.log2(errors[0] / errors[1])
    order += (path, solver) in GAINS_AN_ORDER
    # Pre-asymptotic terms are worth up to a quarter of an order at these step counts.
    assert slope == pytest.approx(order, abs=0.3), errors


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("path", PATHS)
def test_end_point(path, solver):
    steps = {1: 2048, 2: 128, 3: 128, 4: 64}[SOLVERS[solver][1]]
    assert error(path, solver, steps) < 1e-3


@pytest.mark.parametrize("path", PATHS)
def test_adaptive_end_point(path):
    model, e, exact = setting(path)
    sampler = DormandPrince(rtol=1e-9, atol=1e-9, denoise_at_end=False)
    assert float((sampler.sample(model, e).x - exact).abs().max()) < 1e-7


@pytest.mark.parametrize("path", ["linear", "ve"])
def test_data_end(path):
    """From the start of the path down to t = 0, where the law is the data's."""
    schedule = PATHS[path][0]
    mean = torch.tensor([[0.4, -0.3, 0.1]], dtype=torch.float64)
    model = GaussianModel(Path(schedule), mean=mean, std=0.5)
    e = torch.tensor([[1.0, -0.5, 0.3], [-1.2, 0.8, 0.1]], dtype=torch.float64)
    high = schedule.t_max
    start = model.path.start(e, torch.tensor(high, dtype=torch.float64))
    exact = model.exact(start, high, 0.0)
    x = Heun(steps=200, time_grid=Natural()).sample(model, e).x
    assert float((x - exact).abs().max()) < 1e-3
