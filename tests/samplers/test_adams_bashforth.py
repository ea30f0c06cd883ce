import math

import pytest
import torch

from flowexp.paths import VE, VP, Linear, Path
from flowexp.samplers import (
    DEIS,
    IPNDM,
    AdamsBashforth,
    EDMGrid,
    Euler,
    Given,
    IPNDMVariable,
    Natural,
    NoiseToSignal,
    VPGrid,
)
from flowexp.samplers.adams_bashforth import adams_weights
from flowexp.samplers.noise_grids import VPLevels
from tests.samplers.closed_forms import DenoiserModel, GaussianModel, mixture_denoiser

CONSTANTS = {
    1: [1.0],
    2: [3 / 2, -1 / 2],
    3: [23 / 12, -16 / 12, 5 / 12],
    4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
}


@pytest.mark.parametrize("order", CONSTANTS)
@pytest.mark.parametrize("h", [-0.125, 0.3])
def test_uniform_grid_gives_the_constants(order, h):
    weights = adams_weights([0.5 - j * h for j in range(order)], 0.5 + h)
    assert weights == pytest.approx([h * w for w in CONSTANTS[order]], rel=1e-13)


@pytest.mark.parametrize("order", CONSTANTS)
def test_exact_for_polynomials_on_any_grid(order):
    nodes, end = [0.6, 0.75, 1.0, 1.9][:order], 0.37
    for power in range(order):
        integral = (end ** (power + 1) - nodes[0] ** (power + 1)) / (power + 1)
        rule = sum(w * u**power for w, u in zip(adams_weights(nodes, end), nodes, strict=True))
        assert rule == pytest.approx(integral, abs=1e-13)


def test_first_order_is_euler():
    model = GaussianModel(Path(VE()), mean=torch.zeros(1, 2, dtype=torch.float64), std=0.5)
    e = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    ab = AdamsBashforth(steps=6, time_grid=EDMGrid(), order=1).sample(model, e).x
    torch.testing.assert_close(
        ab, Euler(steps=6, time_grid=EDMGrid()).sample(model, e).x, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("order", [0, 5])
@pytest.mark.parametrize("method", [AdamsBashforth, IPNDM, IPNDMVariable, DEIS])
def test_order_out_of_range(method, order):
    with pytest.raises(ValueError, match=f"order is {order}"):
        method(steps=6, time_grid=Natural(), order=order)


DENOISER = mixture_denoiser([0.3, 0.7], [[0.5, -0.4], [-0.6, 0.2]], [0.2, 0.3])
E0 = torch.tensor([[1.0, -0.5], [-1.2, 0.8]], dtype=torch.float64)
NODES, END = [0.6, 0.75, 1.0, 1.9], 0.37
IN_SIGMA = {"ipndm": IPNDM, "ipndm_v": IPNDMVariable, "deis": DEIS}


def sampled(sampler, schedule=None, e=E0):
    return sampler.sample(DenoiserModel(Path(schedule or VE()), DENOISER), e)


@pytest.mark.parametrize("order", CONSTANTS)
def test_ipndm_has_the_constants_on_every_grid(order):
    weights = IPNDM(steps=1).weights(NODES[:order], END)
    assert weights == pytest.approx([(END - NODES[0]) * w for w in CONSTANTS[order]], rel=1e-13)


@pytest.mark.parametrize("order", CONSTANTS)
def test_ipndm_is_adams_bashforth_on_a_uniform_grid_and_only_there(order):
    uniform = Given(values=torch.linspace(20.0, 0.5, 14, dtype=torch.float64).tolist())
    common = {"steps": 13, "order": order}
    exact = sampled(AdamsBashforth(**common, time_grid=uniform)).x
    torch.testing.assert_close(
        sampled(IPNDM(**common, time_grid=uniform)).x, exact, rtol=0, atol=1e-12
    )
    grid = EDMGrid(to_zero=False)
    gap = (
        sampled(IPNDM(**common, time_grid=grid)).x
        - sampled(AdamsBashforth(**common, time_grid=grid)).x
    )
    assert (float(gap.abs().max()) > 1e-3) == (order > 1)


@pytest.mark.parametrize("order", [1, 2])
def test_ipndm_v_is_adams_bashforth_up_to_order_2(order):
    weights = IPNDMVariable(steps=1).weights(NODES[:order], END)
    assert weights == pytest.approx(adams_weights(NODES[:order], END), rel=1e-13)


def test_ipndm_v_misses_polynomials_where_the_reference_does():
    """Order 3 only the square; order 4 on uneven grids even the constant, on even ones the cube."""

    def missed(nodes, end):
        weights = IPNDMVariable(steps=1).weights(nodes, end)
        for power in range(len(nodes)):
            rule = sum(w * u**power for w, u in zip(weights, nodes, strict=True))
            yield abs(rule - (end ** (power + 1) - nodes[0] ** (power + 1)) / (power + 1)) > 1e-3

    assert list(missed(NODES[:3], END)) == [False, False, True]
    assert next(missed(NODES, END))
    assert list(missed([2.0, 3.0, 4.0], 1.0)) == [False, False, False]
    assert list(missed([2.0, 3.0, 4.0, 5.0], 1.0)) == [False, False, False, True]


@pytest.mark.parametrize("end", [0.37, 0.002, 0.0])
@pytest.mark.parametrize("order", CONSTANTS)
def test_deis_is_exact_for_polynomials_in_the_vp_time(order, end):
    levels = VPLevels.between(sigma_min=0.002, sigma_max=80.0, epsilon_s=1e-3)
    weights = DEIS(steps=1).weights(NODES[:order], end)
    # int t^k dn by the trapezoid rule in asinh(n), refined until it does not change
    s = torch.linspace(math.asinh(NODES[0]), math.asinh(end), 200_001, dtype=torch.float64)
    t = levels.time(s.sinh())
    at_nodes = levels.time(torch.tensor(NODES[:order], dtype=torch.float64)).tolist()
    for power in range(order):
        integral = float(torch.trapezoid(t**power * s.cosh(), s))
        rule = sum(w * u**power for w, u in zip(weights, at_nodes, strict=True))
        assert rule == pytest.approx(integral, abs=1e-9)


@pytest.mark.parametrize("order", CONSTANTS)
def test_rho_deis_is_adams_bashforth_in_sigma(order):
    common = {"steps": 9, "order": order, "time_grid": EDMGrid(to_zero=False)}
    rho = sampled(DEIS(in_time=False, **common)).x
    assert torch.equal(rho, sampled(AdamsBashforth(**common)).x)
    tab = sampled(DEIS(**common)).x
    assert torch.equal(tab, rho) == (order == 1)


@pytest.mark.parametrize("name", IN_SIGMA)
@pytest.mark.parametrize("schedule", [Linear(), VP()], ids=["linear", "vp"])
def test_the_same_samples_on_every_path(name, schedule):
    sampler = IN_SIGMA[name](steps=8, time_grid=EDMGrid(sigma_max=40.0))
    c = schedule.coefficients(schedule.time_at_nsr(torch.tensor(40.0, dtype=torch.float64)))
    found = sampled(sampler, schedule, E0 * 40.0 * c.alpha / c.sigma).x
    torch.testing.assert_close(found, sampled(sampler).x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", IN_SIGMA)
@pytest.mark.parametrize("to_zero", [True, False])
def test_one_evaluation_a_step_and_the_last_one_to_zero_is_the_denoised_state(name, to_zero):
    sampler = IN_SIGMA[name](steps=7, time_grid=EDMGrid(to_zero=to_zero))
    seen = []
    model = DenoiserModel(Path(VE()), DENOISER)
    samples = sampler.sample(model, E0, on_step=lambda t, x: seen.append((t, x)))
    assert samples.nfe.unique().tolist() == [7]
    assert float(seen[-1][0]) == pytest.approx(0.0 if to_zero else 0.002, rel=1e-9)
    if to_zero:
        t, before = seen[-2]
        torch.testing.assert_close(samples.x, model.denoise(before, t), rtol=0, atol=1e-14)
        full = IN_SIGMA[name](steps=7, time_grid=EDMGrid(), final_euler=False)
        assert not torch.equal(sampled(full).x, samples.x)


@pytest.mark.parametrize("name", IN_SIGMA)
def test_default_variable_and_grid_are_those_of_the_yaml(name):
    sampler = IN_SIGMA[name](steps=5)
    assert isinstance(sampler.variable, NoiseToSignal)
    assert isinstance(sampler.time_grid, VPGrid if name == "deis" else EDMGrid)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sigma_min": 0.0}, "sigma_min=0.0"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_max=1.0"),
        ({"epsilon_s": 1.0}, r"epsilon_s is 1\.0"),
        ({"sigma_min": 0.5}, "no VP path"),
        ({"sigma_max": math.inf}, "no VP path"),
    ],
)
def test_deis_refuses(values, words):
    with pytest.raises(ValueError, match=words):
        DEIS(steps=5, **values)
