"""Uniform distributions of t and of the logarithm of the noise level."""

import math

import torch
from torch import Tensor

from flowexp.paths.base import as_float64
from flowexp.timesteps.base import TimestepDistribution

__all__ = ["Uniform", "LogUniform"]


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


class LogUniform(TimestepDistribution):
    """``ln(sigma / alpha)`` uniform between ``ln sigma_min`` and ``ln sigma_max``.

    The noise levels that score-SDE trains VE networks with, carried over to every path;
    ``0 < sigma_min < sigma_max``.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column VE (loss; 0.02 and 100).
    """

    in_nsr = True

    def __init__(self, *, sigma_min: float = 0.02, sigma_max: float = 100.0) -> None:
        if not 0.0 < sigma_min < sigma_max < math.inf:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max, got sigma_min={sigma_min}, sigma_max={sigma_max}"
            )
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)

    @property
    def support(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    def quantile(self, u: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(self._span * as_float64(u))

    def cdf(self, value: Tensor) -> Tensor:
        value = as_float64(value).clamp(min=self.sigma_min)
        return (torch.log(value / self.sigma_min) / self._span).clamp(max=1.0)

    def pdf(self, value: Tensor) -> Tensor:
        value = as_float64(value)
        inside = (value >= self.sigma_min) & (value <= self.sigma_max)
        return torch.where(inside, 1.0 / (self._span * torch.where(inside, value, 1.0)), 0.0)

    @property
    def _span(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)
