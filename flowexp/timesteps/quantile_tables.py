"""Quantile functions by interpolation, for laws whose distribution function is costly to invert."""

import torch
from torch import Tensor

__all__ = ["QuantileTable"]

_CLOSEST = 1e-13


class QuantileTable:
    """The cubic Hermite interpolant of a quantile function ``Q``, with ``Q' = 1/density``.

    Args:
        probability: Distribution function at the nodes, (K,), float64, from 0 to 1. Nodes whose
            probabilities rounding cannot tell apart are left out.
        value: The nodes, (K,), increasing.
        density: Probability density there, (K,), > 0.
    """

    def __init__(self, probability: Tensor, *, value: Tensor, density: Tensor) -> None:
        apart = probability.diff(prepend=probability.new_full((1,), -1.0)) > _CLOSEST
        p, v, slope = probability[apart], value[apart], 1.0 / density[apart]
        width = p.diff()
        secant, start, end = v.diff() / width, slope[:-1], slope[1:]
        square = (3.0 * secant - 2.0 * start - end) / width
        cube = (start + end - 2.0 * secant) / width**2
        self.ends = p[1:-1].contiguous()
        self.pieces = torch.stack([p[:-1], v[:-1], start, square, cube], dim=1)

    def to(self, device: torch.device) -> "QuantileTable":
        """The same table on a device; changes this one."""
        self.ends, self.pieces = self.ends.to(device), self.pieces.to(device)
        return self

    def __call__(self, u: Tensor) -> Tensor:
        """Q at ``u`` in (0, 1), float64, of any shape."""
        piece = torch.searchsorted(self.ends, u.contiguous())
        p, value, slope, square, cube = self.pieces[piece].unbind(-1)
        x = u - p
        return value + x * (slope + x * (square + x * cube))
