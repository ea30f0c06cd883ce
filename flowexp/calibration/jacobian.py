"""Jacobian-vector products of networks."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["directional_derivative"]

Function = Callable[..., Tensor]


def directional_derivative(
    function: Function, point: tuple[Tensor, ...], direction: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """The value of a function and its derivative along a direction, ``J v``.

    By forward-mode differentiation, which keeps no graph; where an operation of the network has
    none, by differentiating the vector-Jacobian product ``u -> u^T J``, linear in u, with respect
    to u (two backward passes). Attention runs in its plain form, the only one that is
    differentiable in both ways.

    Args:
        function: Tensors to a tensor.
        point: Arguments of the function.
        direction: One tensor per argument, of its shape.
    """
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        # Torch's own forward mode is built with its deprecated script compiler.
        warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
        try:
            with torch.no_grad():
                value, derivative = torch.func.jvp(function, point, direction)[:2]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            # The errors of operations without forward mode differ; another failure is raised again
            # by the backward passes.
            backward: Any = torch.autograd.functional.jvp
            value, derivative = backward(function, point, direction)
    return value.detach(), derivative.detach()
