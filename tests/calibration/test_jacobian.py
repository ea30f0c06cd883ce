import pytest
import torch
from torch.nn import functional as F

from flowexp.calibration.statistics_pass import directional_derivative


def exact(function, x, v):
    jacobian = torch.autograd.functional.jacobian(function, x)
    return (jacobian.reshape(x.numel(), x.numel()) @ v.reshape(-1)).reshape(x.shape)


def attention(x):
    q = x.reshape(1, 1, 4, 3)
    return F.scaled_dot_product_attention(q, 2.0 * q, q.sin()).reshape(x.shape)


class NoForwardMode(torch.autograd.Function):
    """A product that knows its backward pass only, as some networks' operations do."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3.0 * x**2 * gradient


def cubed(x):
    return NoForwardMode.apply(x).flip(0)


@pytest.mark.parametrize("function", [torch.tanh, attention, cubed])
def test_equals_the_jacobian(function):
    rng = torch.Generator().manual_seed(0)
    x, v = torch.randn(2, 12, dtype=torch.float64, generator=rng)
    value, derivative = directional_derivative(function, (x,), (v,))
    torch.testing.assert_close(value, function(x))
    torch.testing.assert_close(derivative, exact(function, x, v))
    assert not derivative.requires_grad


def test_several_arguments_share_one_product():
    x, t = torch.tensor([1.0, 2.0]), torch.tensor(3.0)
    value, derivative = directional_derivative(
        lambda a, b: a * b, (x, t), (torch.tensor([1.0, 0.0]), torch.tensor(0.5))
    )
    assert value.tolist() == [3.0, 6.0]
    assert derivative.tolist() == [3.5, 1.0]


def test_parameters_get_no_gradient():
    layer = torch.nn.Linear(3, 3)
    directional_derivative(layer, (torch.ones(2, 3),), (torch.ones(2, 3),))
    assert all(p.grad is None for p in layer.parameters())
