"""RF++'s U-shaped distribution: published figures, symmetry, limits."""

import math

import pytest
import torch

from flowexp.paths import VE, Linear
from flowexp.timesteps import UShaped, check_compatible

F64 = torch.float64
U = torch.linspace(0.001, 0.999, 999, dtype=F64)


def test_figures_at_a_4():
    distribution = UShaped(a=4.0, margin=0.0)
    ends = torch.tensor([0.0, 1.0, 0.5], dtype=F64)
    expected = torch.tensor([2.0746, 2.0746, 0.5514], dtype=F64)
    torch.testing.assert_close(distribution.pdf(ends), expected, rtol=0, atol=1e-4)
    assert float(distribution.quantile(U).std()) == pytest.approx(0.3401, abs=1e-3)


@pytest.mark.parametrize("a", [0.3, 2.0, 4.0, 30.0])
def test_closed_forms_and_the_mixture_of_two_exponentials(a):
    distribution = UShaped(a=a, margin=0.0)
    by_asinh = 0.5 + torch.asinh((2.0 * U - 1.0) * math.sinh(a / 2)) / a
    torch.testing.assert_close(distribution.quantile(U), by_asinh, rtol=0, atol=1e-13)
    mixture = (torch.exp(a * U) + torch.exp(a * (1.0 - U))) * a / (2.0 * math.expm1(a))
    torch.testing.assert_close(distribution.pdf(U), mixture, rtol=1e-12, atol=0)


def test_mirrored():
    distribution = UShaped()
    torch.testing.assert_close(
        distribution.quantile(U) + distribution.quantile(1.0 - U), torch.ones_like(U)
    )
    torch.testing.assert_close(distribution.pdf(U), distribution.pdf(1.0 - U))


def test_small_a_is_the_uniform_distribution():
    torch.testing.assert_close(UShaped(a=1e-4, margin=0.0).quantile(U), U, rtol=0, atol=1e-8)


def test_the_literal_formula_of_the_paper_is_another_distribution():
    """``e^{a u} + e^{-a u}`` increases: 27 times as likely at 1 as at 0."""
    literal = torch.cosh(4.0 * U)
    assert float(literal[-1] / literal[0]) == pytest.approx(math.cosh(4.0), rel=0.01)
    distribution = UShaped(a=4.0, margin=0.0)
    assert float(distribution.pdf(U)[-1] / distribution.pdf(U)[0]) == pytest.approx(1.0)


def test_draws_keep_the_margin():
    tails = torch.tensor([2.0**-54, 1e-12, 1 - 2.0**-53], dtype=F64)
    t = UShaped(margin=1e-5).quantile(tails)
    assert float(t.min()) >= 1e-5
    assert float(t.max()) <= 1.0 - 1e-5


def test_lives_on_paths_of_unit_time():
    check_compatible(UShaped(), Linear())
    with pytest.raises(ValueError, match=r"UShaped.*VE"):
        check_compatible(UShaped(), VE())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"a": 0.0}, "a is 0.0"), ({"a": 101.0}, "a is 101"), ({"margin": 0.5}, "margin is 0.5")],
)
def test_impossible_numbers_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        UShaped(**arguments)
