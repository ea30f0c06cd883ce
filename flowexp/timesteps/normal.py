"""Normal distributions of the logarithm of the noise level and of the logit of t."""

import math

import torch
from torch import Tensor

from flowexp.timesteps.base import TimestepDistribution

__all__ = ["LogNormal", "LogitNormal"]


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


class LogitNormal(TimestepDistribution):
    """``t = sigmoid(mean + std n)``, n standard normal.

    Density ``exp(-(logit t - mean)^2 / (2 std^2)) / (std sqrt(2 pi) t (1 - t))``. Drawing t from it
    with weight 1 equals uniform t with this density as the loss weight. Negative means favour the
    data end, t = 0; std is > 0.

    Source: Esser et al., SD3, 2024, arXiv 2403.03206, section 3.1 (0 and 1; same sense of t). For
    CIFAR-10, facebookresearch/flow_matching has (-1.2, 1.2), cut at t = 1 - 1e-4.
    """

    def __init__(self, *, mean: float = 0.0, std: float = 1.0) -> None:
        if not std > 0.0:
            raise ValueError(f"std is {std}; expected a positive number")
        self.mean = float(mean)
        self.std = float(std)

    def quantile(self, u: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u.to(torch.float64)))

    def cdf(self, value: Tensor) -> Tensor:
        probability: Tensor = torch.special.ndtr(self._standardized(value))
        return probability

    def pdf(self, value: Tensor) -> Tensor:
        value = value.to(torch.float64)
        z = self._standardized(value)
        scale = self.std * math.sqrt(2.0 * math.pi) * value * (1.0 - value)
        inside = (value > 0.0) & (value < 1.0)
        return torch.where(inside, torch.exp(-0.5 * z**2) / scale, 0.0)

    def _standardized(self, value: Tensor) -> Tensor:
        t = value.to(torch.float64).clamp(0.0, 1.0)
        return (torch.log(t) - torch.log1p(-t) - self.mean) / self.std
