"""Every distribution of t: density, cdf and quantile agree, and draws follow them.

Each Kolmogorov-Smirnov test takes 100,000 draws with a fixed seed and fails at p < 1e-3: a correct
distribution fails for one seed in a thousand.
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
    LogStudent,
    LogUniform,
    Mode,
    Shifted,
    Stratified,
    Truncated,
    Uniform,
    UShaped,
    VPUniform,
)

F64 = torch.float64
DISTRIBUTIONS = {
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
    "log_student": LogStudent(),
    "log_student_wide": LogStudent(mean=-0.5, scale=0.8, df=4.0, lower=0.002),
    "truncated_lognormal": Truncated(LogNormal(P_mean=-1.1, P_std=2.0)),
    "truncated_times": Truncated(LogitNormal(), lower=0.1, upper=0.6),
    "shifted": Shifted(LogitNormal(), shift=6.928),
    "shifted_to_data": Shifted(Uniform(), shift=0.3),
    "shifted_levels": Shifted(LogUniform(), shift=3.0),
    "vp_uniform": VPUniform(),
    "vp_uniform_part": VPUniform(beta_min=0.5, beta_max=5.0, eps_t=0.1),
}
every_distribution = pytest.mark.parametrize("name", DISTRIBUTIONS)
TAILS = torch.tensor([1e-12, 1e-6, 1e-3, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999, 1 - 1e-6], dtype=F64)


@every_distribution
def test_cdf_inverts_quantile(name):
    distribution = DISTRIBUTIONS[name]
    torch.testing.assert_close(
        distribution.cdf(distribution.quantile(TAILS)), TAILS, rtol=2e-8, atol=5e-15
    )


@every_distribution
def test_pdf_is_the_derivative_of_the_cdf(name):
    distribution = DISTRIBUTIONS[name]
    u = torch.linspace(0.05, 0.95, 19, dtype=F64)
    value = distribution.quantile(u)
    h = 1e-5 * value
    slope = (distribution.cdf(value + h) - distribution.cdf(value - h)) / (2 * h)
    torch.testing.assert_close(distribution.pdf(value), slope, rtol=1e-6, atol=1e-8)


@every_distribution
def test_pdf_integrates_to_one(name):
    """Trapezoids between quantiles, where every distribution is smooth; the two tails hold 2e-6."""
    distribution = DISTRIBUTIONS[name]
    ends = torch.logspace(-6, -2, 4_001, dtype=F64)
    u = torch.cat([ends, torch.linspace(0.01, 0.99, 20_001, dtype=F64)[1:-1], (1 - ends).flip(0)])
    value = distribution.quantile(u)
    area = torch.trapezoid(distribution.pdf(value), value)
    assert abs(area.item() - 1.0) < 5e-6


@every_distribution
def test_pdf_and_cdf_outside_the_support(name):
    distribution = DISTRIBUTIONS[name]
    low, high = distribution.support
    outside = torch.tensor([low - 0.5, min(high, 1e6) + 0.5], dtype=F64)
    if math.isfinite(high):
        assert distribution.pdf(outside).tolist() == [0.0, 0.0]
        assert distribution.cdf(outside).tolist() == [0.0, 1.0]
    else:
        assert distribution.pdf(outside)[0] == 0.0
        assert distribution.cdf(outside)[0] == 0.0


@pytest.mark.statistical
@every_distribution
def test_draws_follow_the_distribution(name):
    distribution = DISTRIBUTIONS[name]
    schedule = VE() if distribution.in_nsr or distribution.support[1] > 1.0 else Linear()
    t = distribution.sample(100_000, schedule=schedule, rng=generator(0, "time"))
    assert t.dtype == F64
    assert t.shape == (100_000,)
    p = stats.kstest(t.numpy(), lambda v: distribution.cdf(torch.as_tensor(v)).numpy()).pvalue
    assert p > 1e-3


@every_distribution
def test_draws_are_a_function_of_the_generator_and_inside_the_path(name):
    distribution = DISTRIBUTIONS[name]
    schedule = VE() if distribution.support[1] > 1.0 and not distribution.in_nsr else Linear()
    first, again = (
        distribution.sample(64, schedule=schedule, rng=generator(5, "time")) for _ in range(2)
    )
    other = distribution.sample(64, schedule=schedule, rng=generator(6, "time"))
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
    for distribution in (Mode(s=0.0), Beta(a=1.0, b=1.0)):
        torch.testing.assert_close(distribution.quantile(u), u, rtol=1e-12, atol=0)
        torch.testing.assert_close(distribution.pdf(u), torch.ones_like(u), rtol=1e-12, atol=0)


def test_published_form_of_mode_is_ours_mirrored():
    u, s = torch.linspace(0.01, 0.99, 50, dtype=F64), 1.29
    published = 1 - u - s * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)
    torch.testing.assert_close(Mode(s=s).quantile(1 - u), published, rtol=1e-12, atol=1e-15)


def test_largest_uniform_number_gives_a_finite_time_below_the_end():
    u = torch.tensor([2.0**-54, 1 - 2.0**-53], dtype=F64)
    for distribution in DISTRIBUTIONS.values():
        value = distribution.quantile(u)
        assert value.isfinite().all()
        assert (value[0] >= distribution.support[0]).all()
        assert (value[1] <= distribution.support[1]).all()


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
