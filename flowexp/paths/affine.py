"""Affine combinations of a state and a network's output."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from flowexp.broadcast import expand_as, factors

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
        return torch.addcmul(expand_as(state, x_t) * x_t, expand_as(factor, x_t), output)

    def of(self, state: Tensor | float, output: Tensor | float) -> Self:
        """The same kind of combination with other coefficients."""
        return type(self)(state, output)

    def combined(self, other: "Affine", own: float, others: float) -> "Affine":
        """``own self + others other`` of one network output, in one pass over the state."""
        kinds = [affine for affine in (self, other) if not isinstance(affine, Identity)]
        return (kinds or [Affine(0.0, 1.0)])[0].of(
            own * self.state + others * other.state, own * self.output + others * other.output
        )

    def rows(self) -> list[Self]:
        """One affine per row of coefficients (K,) or (K, B): of numbers, or of tensors (B,)."""
        states, outputs = torch.as_tensor(self.state), torch.as_tensor(self.output)
        pairs = zip(factors(states), factors(outputs), strict=True)
        return [self.of(a, b) for a, b in pairs]


class Identity(Affine):
    """F itself; skips the arithmetic of a zero and a one."""

    def __call__(self, x_t: Tensor, output: Tensor) -> Tensor:
        return output


class LeadingChannels(Affine):
    """Uses only the first channels of F, as many as the state has."""

    def __call__(self, x_t: Tensor, output: Tensor) -> Tensor:
        return super().__call__(x_t, output[:, : x_t.shape[1]])


def negated(affine: Affine) -> Affine:
    """The same combination with ``-F`` in place of F."""
    return Affine(affine.state, -affine.output)


def leading(affine: Affine) -> Affine:
    """The same combination with the first channels of F."""
    return LeadingChannels(affine.state, affine.output)
