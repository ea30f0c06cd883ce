"""Derivatives along a direction, of functions that draw random numbers too."""

import pytest
import torch
from torch.nn.functional import dropout, scaled_dot_product_attention

from flowexp.objectives.flow_map import JVP, CentralDifference


def parabola(x, t):
    """Half of the dimensions are dropped, in each row by itself."""
    return dropout(x.square() * (1.0 + t[:, None]), 0.5)


@pytest.mark.parametrize("how", [JVP(), CentralDifference(step=1e-3)])
def test_the_derivative_is_that_of_one_dropout_mask(how):
    """0 where the value was dropped; to torch's generators it was one call."""
    x, t = torch.linspace(0.5, 2.0, 40, dtype=torch.float64).reshape(8, 5), torch.zeros(8).double()
    torch.manual_seed(0)
    value, slope = how.along(parabola, (x, t), (torch.ones_like(x), torch.ones_like(t)))
    afterwards = torch.rand(())
    expected = 2.0 * (2.0 * x + x.square())
    kept = value != 0.0
    assert 5 < kept.sum() < 35
    torch.testing.assert_close(slope[kept], expected[kept], rtol=1e-5, atol=0.0)
    assert torch.all(slope[~kept] == 0.0)
    torch.manual_seed(0)
    assert torch.equal(parabola(x, t), value)
    assert torch.equal(torch.rand(()), afterwards)


def test_forward_mode_goes_through_attention():
    q = torch.randn(1, 2, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def attend(q):
        return scaled_dot_product_attention(q, 2.0 * q, q)

    exact = JVP().along(attend, (q,), (torch.ones_like(q),))[1]
    near = CentralDifference(step=1e-4).along(attend, (q,), (torch.ones_like(q),))[1]
    torch.testing.assert_close(near, exact, rtol=1e-6, atol=1e-7)


def test_a_step_must_be_positive():
    with pytest.raises(ValueError, match="step is 0"):
        CentralDifference(step=0)
