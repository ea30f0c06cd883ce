"""Every law of t: density, distribution function and quantile agree; draws follow the law.

Each Kolmogorov-Smirnov test takes 100,000 draws with a fixed seed and fails at p < 1e-3: a correct
law fails for one seed in a thousand.
"""

import math

import pytest
import torch
from scipy import stats

from flowexp.paths import VE, Linear
from flowexp.seeding import generator
from flowexp.timesteps import (
    Beta,
    CosMap,
    LogitNormal,
    LogNormal,
    LogUniform,
    Mode,
    Stratified,
    Uniform,
    UShaped,
    VPUniform,
)

F64 = torch.float64
LAWS = {
    "uniform": Uniform(),
    "uniform_part": Uniform(low=0.2, high=0.7),
    "uniform_sigma": Uniform(low=0.002, high=80.0),
    "lognormal": LogNormal(),
    "lognormal_wide": LogNormal(P_mean=0.3, P_std=2.0),
    "logit_normal": LogitNormal(),
    "logit_normal_data": LogitNormal(mean=-1.2, std=1.2),
    "mode": Mode(),
    "mode_ends": Mode(s=-0.9),
    "mode_steep": Mode(s=1.6),
    "cosmap": CosMap(),
    "beta": Beta(a=2.0, b=3.5),
    "beta_ends": Beta(a=0.7, b=0.5),
    "u_shaped": UShaped(),
    "u_shaped_wide": UShaped(a=0.5, margin=0.1),
    "stratified": Stratified(LogitNormal()),
    "log_uniform": LogUniform(),
    "vp_uniform": VPUniform(),
    "vp_uniform_part": VPUniform(beta_min=0.5, beta_max=5.0, eps_t=0.1),
}
every_law = pytest.mark.parametrize("name", LAWS)
TAILS = torch.tensor([1e-12, 1e-6, 1e-3, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999, 1 - 1e-6], dtype=F64)


@every_law
def test_cdf_inverts_quantile(name):
    law = LAWS[name]
    torch.testing.assert_close(law.cdf(law.quantile(TAILS)), TAILS, rtol=2e-8, atol=1e-15)


@every_law
def test_pdf_is_the_derivative_of_the_cdf(name):
    law = LAWS[name]
    u = torch.linspace(0.05, 0.95, 19, dtype=F64)
    value = law.quantile(u)
    h = 1e-5 * value
    slope = (law.cdf(value + h) - law.cdf(value - h)) / (2 * h)
    torch.testing.assert_close(law.pdf(value), slope, rtol=1e-6, atol=1e-8)


@every_law
def test_pdf_integrates_to_one(name):
    """Trapezoids between quantiles, where every law is smooth; the two tails hold 2e-6."""
    law = LAWS[name]
    ends = torch.logspace(-6, -2, 4_001, dtype=F64)
    u = torch.cat([ends, torch.linspace(0.01, 0.99, 20_001, dtype=F64)[1:-1], (1 - ends).flip(0)])
    value = law.quantile(u)
    area = torch.trapezoid(law.pdf(value), value)
    assert abs(area.item() - 1.0) < 5e-6


@every_law
def test_pdf_and_cdf_outside_the_support(name):
    law = LAWS[name]
    low, high = law.support
    outside = torch.tensor([low - 0.5, min(high, 1e6) + 0.5], dtype=F64)
    if math.isfinite(high):
        assert law.pdf(outside).tolist() == [0.0, 0.0]
        assert law.cdf(outside).tolist() == [0.0, 1.0]
    else:
        assert law.pdf(outside)[0] == 0.0
        assert law.cdf(outside)[0] == 0.0


@pytest.mark.statistical
@every_law
def test_draws_follow_the_law(name):
    law = LAWS[name]
    schedule = VE() if law.in_nsr or law.support[1] > 1.0 else Linear()
    t = law.sample(100_000, schedule=schedule, rng=generator(0, "time"))
    assert t.dtype == F64
    assert t.shape == (100_000,)
    p = stats.kstest(t.numpy(), lambda v: law.cdf(torch.as_tensor(v)).numpy()).pvalue
    assert p > 1e-3


@every_law
def test_draws_are_a_function_of_the_generator_and_inside_the_path(name):
    law = LAWS[name]
    schedule = VE() if law.support[1] > 1.0 and not law.in_nsr else Linear()
    first, again = (law.sample(64, schedule=schedule, rng=generator(5, "time")) for _ in range(2))
    other = law.sample(64, schedule=schedule, rng=generator(6, "time"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.isfinite().all()
    assert (first > 0.0).all()
    assert (first < schedule.t_max).all()


def test_lognormal_on_the_linear_path_is_logit_normal():
    u = TAILS
    t = Linear().time_at_nsr(LogNormal(P_mean=-1.2, P_std=1.2).quantile(u))
    torch.testing.assert_close(t, LogitNormal(mean=-1.2, std=1.2).quantile(u), rtol=1e-12, atol=0)


def test_limits_that_are_uniform():
    u = torch.linspace(0.01, 0.99, 50, dtype=F64)
    for law in (Mode(s=0.0), Beta(a=1.0, b=1.0)):
        torch.testing.assert_close(law.quantile(u), u, rtol=1e-12, atol=0)
        torch.testing.assert_close(law.pdf(u), torch.ones_like(u), rtol=1e-12, atol=0)


def test_published_form_of_mode_is_ours_mirrored():
    u, s = torch.linspace(0.01, 0.99, 50, dtype=F64), 1.29
    published = 1 - u - s * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)
    torch.testing.assert_close(Mode(s=s).quantile(1 - u), published, rtol=1e-12, atol=1e-15)


def test_largest_uniform_number_gives_a_finite_time_below_the_end():
    u = torch.tensor([2.0**-54, 1 - 2.0**-53], dtype=F64)
    for law in LAWS.values():
        value = law.quantile(u)
        assert value.isfinite().all()
        assert (value[0] >= law.support[0]).all()
        assert (value[1] <= law.support[1]).all()


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Uniform(low=1.0, high=1.0), "low"),
        (lambda: Uniform(low=-0.1), "low"),
        (lambda: LogNormal(P_std=0.0), "P_std"),
        (lambda: LogitNormal(std=-1.0), "std"),
        (lambda: Mode(s=1.76), "1.7519"),
        (lambda: Mode(s=-1.1), "s is"),
        (lambda: Beta(a=0.0), "a="),
    ],
)
def test_impossible_arguments_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
