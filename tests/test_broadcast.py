"""Coefficients of several times, and states multiplied with them."""

import pytest
import torch

from flowexp.broadcast import expand_as, factors, scaled


def test_shared_times_give_numbers_and_own_times_give_rows():
    assert factors(torch.tensor([0.5, 1.0], dtype=torch.float64)) == [0.5, 1.0]
    own = torch.tensor([[0.5, 2.0], [1.0, 1.0]], dtype=torch.float64)
    assert [row.tolist() for row in factors(own)] == own.tolist()
    assert factors(torch.ones_like(own)) == [1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_state_is_scaled_by_numbers_and_by_rows_alike(dtype):
    x = torch.arange(12.0, dtype=dtype).reshape(2, 2, 3)
    half = scaled(x, 0.5)
    assert half.dtype == dtype
    assert torch.equal(half, 0.5 * x)
    assert torch.equal(scaled(x, torch.tensor([0.5, 0.5], dtype=torch.float64)), half)
    assert scaled(x, 1.0) is x


def test_a_coefficient_of_another_batch_is_refused():
    with pytest.raises(ValueError, match=r"\(3,\)"):
        expand_as(torch.ones(3), torch.ones(2, 4))
