import pytest
import torch

from flowexp.paths import VE, Linear, Path
from flowexp.samplers import (
    DDIM,
    DPM2,
    RK4,
    AdamsBashforth,
    EDMGrid,
    EDMHeun,
    Euler,
    Heun,
    Heun3,
    Midpoint,
    Natural,
    Ralston,
    SecondOrder,
    Tableau,
    ThreeEighths,
    Uniform,
)
from tests.samplers.closed_forms import DenoiserModel, GaussianModel, mixture_denoiser

E0 = torch.tensor([[1.0, -0.5], [-1.2, 0.8]], dtype=torch.float64)
NAMED = [Euler, Midpoint, Heun, Ralston, Heun3, RK4, ThreeEighths]


def gaussian(schedule, **kwargs):
    mean = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    return GaussianModel(Path(schedule), mean=mean, std=0.5, **kwargs)


def nfe(sampler, model):
    return sampler.sample(model, E0).nfe.unique().tolist()


@pytest.mark.parametrize("method", NAMED)
def test_order_conditions(method):
    tableau = method.tableau
    order = {Euler: 1, Heun3: 3, RK4: 4, ThreeEighths: 4}.get(method, 2)
    for power in range(order):
        moment = sum(b * c**power for b, c in zip(tableau.b, tableau.c, strict=True))
        assert moment == pytest.approx(1.0 / (power + 1), abs=1e-14)


def test_tableau_refuses_inconsistent_rows():
    with pytest.raises(ValueError, match=r"sums to 0\.9"):
        Tableau((), (0.9,))
    with pytest.raises(ValueError, match=r"lengths \[2\]"):
        Tableau(((0.5, 0.5),), (0.5, 0.5))


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.5])
def test_second_order_refuses(alpha):
    with pytest.raises(ValueError, match=f"alpha is {alpha}"):
        SecondOrder(alpha=alpha, steps=3, time_grid=Natural())


@pytest.mark.parametrize(("alpha", "method"), [(1.0, Heun), (0.5, Midpoint), (2.0 / 3.0, Ralston)])
def test_second_order_contains_the_named_methods(alpha, method):
    model = gaussian(Linear())
    family = SecondOrder(alpha=alpha, steps=5, time_grid=Uniform()).sample(model, E0).x
    named = method(steps=5, time_grid=Uniform(), final_euler=True).sample(model, E0).x
    assert torch.equal(family, named)


@pytest.mark.parametrize(
    ("method", "on_linear", "on_ve"),
    [
        (Euler, 7, 7),
        (DDIM, 7, 7),
        (AdamsBashforth, 7, 7),
        (Heun, 13, 13),
        (EDMHeun, 13, 13),
        (DPM2, 13, 13),
        (Midpoint, 14, 13),
        (Ralston, 14, 13),
        (Heun3, 21, 19),
        (RK4, 28, 25),
        (ThreeEighths, 28, 25),
    ],
)
def test_nfe(method, on_linear, on_ve):
    """N = 7. The VE path cannot be evaluated below its t_min: the step to 0 is Euler's."""
    noise_grid = method in (EDMHeun, DPM2)
    sampler = method(steps=7, time_grid=EDMGrid() if noise_grid else Natural())
    assert nfe(sampler, gaussian(Linear())) == [on_linear]
    assert nfe(sampler, gaussian(VE())) == [on_ve]


def test_final_euler():
    assert nfe(Heun(steps=4, time_grid=Uniform(), final_euler=False), gaussian(Linear())) == [8]
    assert nfe(Heun(steps=4, time_grid=Uniform(), final_euler=None), gaussian(Linear())) == [8]
    assert nfe(Heun(steps=4, time_grid=Natural(), final_euler=None), gaussian(VE())) == [7]
    assert nfe(RK4(steps=4, time_grid=Uniform(), final_euler=True), gaussian(Linear())) == [13]
    with pytest.raises(ValueError, match=r"final_euler is False.*0\.002"):
        nfe(Heun(steps=4, time_grid=Natural(), final_euler=False), gaussian(VE()))


def test_grid_that_ends_above_zero_has_full_steps():
    sampler = EDMHeun(steps=4, time_grid=EDMGrid(to_zero=False))
    assert nfe(sampler, gaussian(VE())) == [8]


def test_final_euler_step_returns_the_denoised_state():
    model = DenoiserModel(Path(VE()), mixture_denoiser([1.0], [[0.2, 0.1]], [0.3]))
    seen = []
    sampler = Heun(steps=5, time_grid=Natural())
    x = sampler.sample(model, E0, on_step=lambda t, state: seen.append((t, state))).x
    (t, before), _ = seen[-2], seen[-1]
    torch.testing.assert_close(x, model.denoise(before, t), rtol=0, atol=1e-14)


def test_euler_in_unit_time_is_edms_euler():
    """The linear path at t = sigma/(1 + sigma) takes the steps of Euler's method in sigma."""
    denoiser = mixture_denoiser([0.3, 0.7], [[0.5, -0.4], [-0.6, 0.2]], [0.2, 0.3])
    ve, linear = DenoiserModel(Path(VE()), denoiser), DenoiserModel(Path(Linear()), denoiser)
    grid = EDMGrid()
    on_ve = Euler(steps=9, time_grid=grid).sample(ve, E0).x
    on_linear = Euler(steps=9, time_grid=grid).sample(linear, E0).x
    torch.testing.assert_close(on_linear, on_ve, rtol=0, atol=1e-11)


def test_sampler_has_no_memory():
    sampler = AdamsBashforth(steps=6, time_grid=Uniform(), order=3)
    model = gaussian(Linear())
    first = sampler.sample(model, E0).x
    sampler.sample(model, E0 * 3.0)
    assert torch.equal(sampler.sample(model, E0).x, first)
