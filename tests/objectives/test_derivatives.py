"""Directional derivatives of functions."""

import pytest
import torch
from torch import Tensor

from flowexp.objectives.flow_map import JVP, CentralDifference


def cubes(x: Tensor, t: Tensor) -> Tensor:
    return x**3 * t[:, None] ** 2


AT = torch.tensor([[1.0, 2.0], [0.5, -1.0]]).double(), torch.tensor([0.5, 2.0]).double()
ALONG = torch.tensor([[1.0, 0.0], [2.0, 1.0]]).double(), torch.ones(2).double()
EXACT = 3 * AT[0] ** 2 * AT[1][:, None] ** 2 * ALONG[0] + 2 * AT[0] ** 3 * AT[1][:, None]


@pytest.mark.parametrize("derivative", [JVP(), CentralDifference(step=1e-5)])
def test_value_and_derivative(derivative: JVP) -> None:
    value, slope = derivative.along(cubes, AT, ALONG)
    assert torch.equal(value, cubes(*AT))
    torch.testing.assert_close(slope, EXACT, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(derivative.slope(cubes, AT, ALONG), slope, rtol=0, atol=0)


def test_a_difference_takes_two_calls_and_stays_where_the_function_is_defined() -> None:
    """One-sided, with an error of order h, where there is no room."""
    evaluated = []

    def logarithm(t: Tensor) -> Tensor:
        evaluated.append(t)
        return torch.log(1.0 - t)

    t = torch.tensor([0.5, 0.9999, 1e-4], dtype=torch.float64)
    room = t, 1.0 - 1e-9 - t
    slope = CentralDifference(step=1e-3).slope(logarithm, (t,), (torch.ones(3),), room=room)
    assert len(evaluated) == 2
    assert all(bool((times >= 0.0).all() and (times < 1.0).all()) for times in evaluated)
    assert slope[0] == pytest.approx(-2.0, rel=1e-5)
    assert slope[2] == pytest.approx(-1.0, rel=1e-2)
    assert torch.isfinite(slope).all()
