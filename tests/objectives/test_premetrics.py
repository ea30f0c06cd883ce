"""Premetrics: values, limits, small differences."""

import pytest
import torch

from flowexp.objectives import L2, PseudoHuber, SquaredL2, SumOfSquares


def difference(scale=1.0):
    d = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return scale * d


def norm(d):
    return d.flatten(1).norm(dim=1)


def test_squared_l2_is_the_mean_square():
    d = difference()
    torch.testing.assert_close(SquaredL2()(d), norm(d) ** 2 / 48)


def test_half_the_sum_of_squares_is_the_mean_times_half_the_dimensions():
    d = difference()
    torch.testing.assert_close(SumOfSquares()(d), 24 * SquaredL2()(d))
    torch.testing.assert_close(SumOfSquares(factor=1.0)(d), norm(d) ** 2)
    with pytest.raises(ValueError, match=r"factor is 0\.0; expected a positive number"):
        SumOfSquares(factor=0.0)


def test_l2_is_the_root_of_the_mean_square_and_flat_at_zero():
    d = difference()
    torch.testing.assert_close(L2()(d), SquaredL2()(d).sqrt())
    zero = torch.zeros(2, 3, requires_grad=True)
    L2()(zero).sum().backward()
    assert torch.equal(zero.grad, torch.zeros(2, 3))


def test_pseudo_huber_rule_is_per_dimension():
    """RF++: c = 0.00054 N, 1.65888 for 3 x 32 x 32."""
    d = torch.full((1, 3, 32, 32), 0.1, dtype=torch.float64)
    assert torch.equal(PseudoHuber()(d), PseudoHuber(c=0.00054 * 3072)(d))
    square = 3072 * 0.01
    expected = ((square + 1.65888**2) ** 0.5 - 1.65888) / 3072
    assert PseudoHuber()(d).item() == pytest.approx(expected, rel=1e-12)


def test_pseudo_huber_limits():
    d = difference()
    torch.testing.assert_close(PseudoHuber(c=1e-9)(d), norm(d) / 48, rtol=1e-8, atol=0)
    torch.testing.assert_close(PseudoHuber(c=1e5)(d), norm(d) ** 2 / (2e5 * 48), rtol=1e-8, atol=0)


def test_pseudo_huber_does_not_cancel_in_float32():
    d = difference(1e-5)
    exact = PseudoHuber(c=1.0)(d)
    torch.testing.assert_close(PseudoHuber(c=1.0)(d.float()).double(), exact, rtol=1e-5, atol=0)


def test_gradient_is_finite_at_zero():
    d = torch.zeros(2, 3, requires_grad=True)
    PseudoHuber()(d).sum().backward()
    assert torch.equal(d.grad, torch.zeros(2, 3))


def test_impossible_arguments_are_named():
    with pytest.raises(ValueError, match="c is"):
        PseudoHuber(c=0.0)
    with pytest.raises(ValueError, match="c_per_dimension"):
        PseudoHuber(c_per_dimension=-1.0)
