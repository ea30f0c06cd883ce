"""Uniform distributions: of t, of the logarithm of the noise level, of a VP path's time."""

import math

import torch
from torch import Tensor

from flowexp.paths import VP
from flowexp.paths.base import as_float64
from flowexp.timesteps.base import TimestepDistribution

__all__ = ["Uniform", "LogUniform", "VPUniform"]


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


class VPUniform(TimestepDistribution):
    """``sigma/alpha = sqrt(exp(T(s)) - 1)`` with s uniform in (eps_t, 1), T that of a VP path.

    ``T(s) = beta_min s + (beta_max - beta_min) s^2/2``: the noise levels that a network on the VP
    path is trained with, carried over to every path; on VP itself it is uniform in t.

    Args:
        beta_min: Noise rate at the data end, > 0.
        beta_max: Noise rate at the source end, >= beta_min.
        eps_t: Smallest time, in (0, 1).

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column VP (loss).
    """

    in_nsr = True

    def __init__(
        self, *, beta_min: float = 0.1, beta_max: float = 20.0, eps_t: float = 1e-5
    ) -> None:
        self.reference = VP(beta_min=beta_min, beta_max=beta_max, t_min=eps_t)

    @property
    def support(self) -> tuple[float, float]:
        low, high = self.quantile(torch.tensor([0.0, 1.0])).tolist()
        return low, high

    def quantile(self, u: Tensor) -> Tensor:
        eps = self.reference.t_min
        return self.reference.nsr(eps + (1.0 - eps) * as_float64(u))

    def cdf(self, value: Tensor) -> Tensor:
        """``(s(value) - eps_t) / (1 - eps_t)``, clipped to [0, 1]."""
        eps = self.reference.t_min
        time = self.reference.time_at_nsr(as_float64(value).clamp(min=0.0))
        return ((time - eps) / (1.0 - eps)).clamp(0.0, 1.0)

    def pdf(self, value: Tensor) -> Tensor:
        """``ds/dn / (1 - eps_t) = 2n / ((1 + n^2) beta(s) (1 - eps_t))`` at noise level n."""
        n = as_float64(value).clamp(min=0.0)
        path = self.reference
        beta = path.beta_min + (path.beta_max - path.beta_min) * path.time_at_nsr(n)
        density = 2.0 * n / ((1.0 + n**2) * beta * (1.0 - path.t_min))
        low, high = self.support
        return torch.where((value >= low) & (value <= high), density, 0.0)
