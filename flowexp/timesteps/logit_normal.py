"""The logit-normal distribution of t."""

import math

import torch
from torch import Tensor

from flowexp.timesteps.base import TimestepDistribution

__all__ = ["LogitNormal"]


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
