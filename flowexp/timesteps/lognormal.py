"""EDM's log-normal distribution of the noise level."""

import math

import torch
from torch import Tensor

from flowexp.timesteps.base import TimestepDistribution

__all__ = ["LogNormal"]


class LogNormal(TimestepDistribution):
    """``ln(sigma / alpha) ~ N(P_mean, P_std^2)``: EDM's distribution, carried over to every path.

    P_std is > 0. On the linear path this is the logit-normal distribution of t with the same two
    numbers.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1 (-1.2 and 1.2).
    """

    in_nsr = True

    def __init__(self, *, P_mean: float = -1.2, P_std: float = 1.2) -> None:
        if not P_std > 0.0:
            raise ValueError(f"P_std is {P_std}; expected a positive number")
        self.P_mean = float(P_mean)
        self.P_std = float(P_std)

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, math.inf

    def quantile(self, u: Tensor) -> Tensor:
        return torch.exp(self.P_mean + self.P_std * torch.special.ndtri(u.to(torch.float64)))

    def cdf(self, value: Tensor) -> Tensor:
        probability: Tensor = torch.special.ndtr(self._standardized(value))
        return probability

    def pdf(self, value: Tensor) -> Tensor:
        """Density in the noise level, not in its logarithm."""
        value = value.to(torch.float64)
        z = self._standardized(value)
        scale = self.P_std * math.sqrt(2.0 * math.pi) * value
        return torch.where(value > 0.0, torch.exp(-0.5 * z**2) / scale, 0.0)

    def _standardized(self, value: Tensor) -> Tensor:
        return (torch.log(value.to(torch.float64).clamp(min=0.0)) - self.P_mean) / self.P_std
