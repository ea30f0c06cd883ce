"""The uniform distribution of t."""

import math

import torch
from torch import Tensor

from flowexp.timesteps.base import TimestepDistribution

__all__ = ["Uniform"]


class Uniform(TimestepDistribution):
    """t uniform in (low, high), 0 <= low < high; on the VE path, whose time is sigma, in sigma."""

    def __init__(self, *, low: float = 0.0, high: float = 1.0) -> None:
        if not 0.0 <= low < high < math.inf:
            raise ValueError(f"need 0 <= low < high, got low={low}, high={high}")
        self.low = float(low)
        self.high = float(high)

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def quantile(self, u: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * u.to(torch.float64)

    def cdf(self, value: Tensor) -> Tensor:
        value = value.to(torch.float64)
        return ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)

    def pdf(self, value: Tensor) -> Tensor:
        value = value.to(torch.float64)
        inside = (value >= self.low) & (value <= self.high)
        return inside.to(torch.float64) / (self.high - self.low)
