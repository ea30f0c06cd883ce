"""The pseudo-Huber of every dimension by itself: limits, and no cancellation."""

import pytest
import torch

from flowexp.objectives import ElementwisePseudoHuber, PseudoHuber, SquaredL2, weightings
from flowexp.paths import Linear


def difference():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 5, dtype=torch.float64, generator=rng)


def test_is_the_mean_over_dimensions_of_its_formula():
    d, c = difference(), 0.7
    expected = (torch.sqrt(d**2 + c**2) - c).flatten(1).mean(1)
    torch.testing.assert_close(ElementwisePseudoHuber(c=c)(d), expected)


def test_limits_are_the_absolute_value_and_the_square():
    d = difference()
    small, large = ElementwisePseudoHuber(c=1e-9)(d), ElementwisePseudoHuber(c=1e6)(d)
    torch.testing.assert_close(small, d.abs().flatten(1).mean(1), rtol=0, atol=1e-8)
    torch.testing.assert_close(large * 2e6, SquaredL2()(d), rtol=1e-6, atol=0)


def test_tiny_float32_differences_keep_their_digits():
    d = torch.full((1, 4), 1e-6, dtype=torch.float32)
    value = ElementwisePseudoHuber(c=1.0)(d)
    torch.testing.assert_close(value, torch.tensor([5e-13]), rtol=1e-5, atol=0)


def test_differs_from_the_premetric_of_the_whole_sample():
    d = difference()
    assert not torch.allclose(ElementwisePseudoHuber(c=0.1)(d), PseudoHuber(c=0.1)(d))


def test_shifted_snr_is_finite_at_both_ends_and_one_at_the_source():
    c = Linear().coefficients(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    expected = 1.0 + torch.tensor([1e6, (0.5 / 0.501) ** 2, 0.0], dtype=torch.float64)
    torch.testing.assert_close(weightings.ShiftedSNR()(c), expected)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: ElementwisePseudoHuber(c=0.0), "c is 0"),
        (lambda: weightings.ShiftedSNR(offset=0.0), "offset=0"),
        (lambda: weightings.ShiftedSNR(plus=-1.0), "plus=-1"),
    ],
)
def test_bad_values_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
