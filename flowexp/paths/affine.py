"""Affine combinations of a state and a network's output."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from flowexp.broadcast import expand_as

__all__ = ["Affine", "Identity", "LeadingChannels", "leading", "negated"]


@dataclass(frozen=True)
class Affine:
    """``state * x_t + output * F``.

    Attributes:
        state: Coefficient of x_t: float64 of the shape of t, or a number for one time.
        output: Coefficient of F, likewise.
    """

    state: Tensor | float
    output: Tensor | float

    def __call__(self, x_t: Tensor, output: Tensor) -> Tensor:
        """The combination, in the dtype of ``x_t``."""
        if isinstance(self.state, float) and isinstance(self.output, float):
            return torch.add(x_t * self.state, output, alpha=self.output)
        state, factor = torch.as_tensor(self.state), torch.as_tensor(self.output)
        return expand_as(state, x_t) * x_t + expand_as(factor, x_t) * output

    def rows(self) -> list[Self]:
        """One affine per row of coefficients (K,) or (K, B): of numbers, or of tensors (B,)."""
        states, outputs = torch.as_tensor(self.state), torch.as_tensor(self.output)
        pairs = zip(_listed(states), _listed(outputs), strict=True)
        return [replace(self, state=a, output=b) for a, b in pairs]


def _listed(values: Tensor) -> Sequence[Tensor | float]:
    """The rows of a tensor; numbers where they are scalars, on which tensor arithmetic is slow."""
    if values.ndim > 1:
        return values.unbind()
    numbers: list[Tensor | float] = values.tolist()
    return numbers


class Identity(Affine):
    """F itself; skips the arithmetic of a zero and a one."""

    def __call__(self, x_t: Tensor, output: Tensor) -> Tensor:
        """F."""
        return output


class LeadingChannels(Affine):
    """Of F only the first channels, as many as the state has."""

    def __call__(self, x_t: Tensor, output: Tensor) -> Tensor:
        """The combination of x_t and the first channels of F."""
        return super().__call__(x_t, output[:, : x_t.shape[1]])


def negated(affine: Affine) -> Affine:
    """The same of ``-F``."""
    return Affine(affine.state, -affine.output)


def leading(affine: Affine) -> Affine:
    """The same of the first channels of F."""
    return LeadingChannels(affine.state, affine.output)
