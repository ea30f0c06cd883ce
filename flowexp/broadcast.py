"""The one place where per-sample coefficients meet samples."""

import torch
from torch import Tensor

__all__ = ["expand_as", "factors", "scaled"]


def expand_as(coefficient: Tensor, x: Tensor) -> Tensor:
    """A scalar or (B,) coefficient as (B, 1, ..., 1), in the dtype and on the device of ``x``.

    Raises:
        ValueError: The coefficient is neither a scalar nor of the batch's size.
    """
    c = coefficient.to(device=x.device, dtype=x.dtype)
    if c.ndim == 0:
        return c
    if c.ndim != 1 or c.shape[0] not in (1, x.shape[0]):
        raise ValueError(f"coefficient has shape {tuple(c.shape)}; expected () or ({x.shape[0]},)")
    return c.reshape(-1, *([1] * (x.ndim - 1)))


def factors(coefficients: Tensor, *, device: torch.device | None = None) -> list[Tensor | float]:
    """Float64 coefficients at several times, (K,) or (K, B), one by one: numbers, or tensors (B,).

    Beside a small network, tensor arithmetic on single numbers is what costs, and beside a large
    batch every pass over it; rows of nothing but ones become the number 1 on the CPU, where asking
    costs nothing. Tensors go to ``device``.
    """
    numbers: list[Tensor | float]
    if coefficients.ndim == 1:
        numbers = coefficients.tolist()
        return numbers
    if coefficients.device.type == "cpu" and bool((coefficients == 1.0).all()):
        return [1.0] * len(coefficients)
    return list(coefficients.to(device).unbind())


def scaled(x: Tensor, factor: Tensor | float) -> Tensor:
    """``factor x``, in the dtype of ``x``; ``x`` itself where the factor is the number 1."""
    if isinstance(factor, float):
        return x if factor == 1.0 else x * factor
    return expand_as(factor, x) * x
