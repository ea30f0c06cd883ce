"""Distributions over finitely many times, for students of one or of k steps."""

import math

import torch
from torch import Tensor

from flowexp.paths.base import as_float64
from flowexp.timesteps.base import TimestepDistribution
from flowexp.timesteps.uniform import Uniform

__all__ = ["Fixed", "UniformGrid"]


class Fixed(TimestepDistribution):
    """One time, >= 0; at the source end it is that of one-step distillation.

    Source: Liu et al., 2022, arXiv 2209.03003. Their code trains and samples at t = 0.999, where
    the state is 0.999 e + 0.001 x and contains a little of x; at t = 1 it is e alone.
    """

    drawn_end = "value"

    def __init__(self, *, value: float) -> None:
        if not (0.0 <= value and math.isfinite(value)):
            raise ValueError(f"value is {value}; expected a time >= 0")
        self.value = float(value)

    @property
    def support(self) -> tuple[float, float]:
        return self.value, self.value

    def quantile(self, u: Tensor) -> Tensor:
        return torch.full_like(as_float64(u), self.value)

    def cdf(self, value: Tensor) -> Tensor:
        return (as_float64(value) >= self.value).to(torch.float64)

    def pdf(self, value: Tensor) -> Tensor:
        """Probability mass: 1 at the time (there is no density)."""
        return (as_float64(value) == self.value).to(torch.float64)


class UniformGrid(Uniform):
    """``t = low + (high - low) j / points``, j = 1 .. points with equal probability.

    The times at which a student of ``points`` Euler steps is evaluated, and no others.

    Args:
        points: Number of times, >= 1.
        low: Where sampling ends, >= 0; never drawn itself.
        high: Where it starts, > low.

    Source: Liu et al., 2022, arXiv 2209.03003, section 2 (distillation to k steps). Their code has
    high = 0.999.
    """

    drawn_end = "high"

    def __init__(self, *, points: int, low: float = 0.0, high: float = 1.0) -> None:
        if points < 1:
            raise ValueError(f"points is {points}; expected at least 1")
        self.points = int(points)
        super().__init__(low=low, high=high)

    def quantile(self, u: Tensor) -> Tensor:
        """The smallest time whose distribution function reaches u."""
        j = torch.ceil(as_float64(u) * self.points).clamp(1, self.points)
        return self._time(j)

    def cdf(self, value: Tensor) -> Tensor:
        """Share of the times at or below ``value``."""
        times = self._time(torch.arange(1, self.points + 1, device=value.device))
        below = torch.searchsorted(times, as_float64(value).contiguous(), right=True)
        return below.to(torch.float64) / self.points

    def pdf(self, value: Tensor) -> Tensor:
        """Probability mass: 1/points at each time (there is no density)."""
        value = as_float64(value)
        before = torch.nextafter(value, torch.full_like(value, -torch.inf))
        return self.cdf(value) - self.cdf(before)

    def _time(self, j: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * (as_float64(j) / self.points)
