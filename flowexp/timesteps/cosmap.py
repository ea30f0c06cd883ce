"""The distribution that gives the linear path the cosine path's noise levels."""

import math

import torch
from torch import Tensor

from flowexp.timesteps.base import TimestepDistribution

__all__ = ["CosMap"]


class CosMap(TimestepDistribution):
    """``t = 1 - 1 / (tan(pi u / 2) + 1)``, u uniform; density ``2 / (pi (1 - 2t + 2t^2))``.

    Source: Esser et al., SD3, 2024, arXiv 2403.03206, section 3.1.
    """

    def quantile(self, u: Tensor) -> Tensor:
        """``sin / (sin + cos)`` of ``pi u / 2``."""
        u = u.to(torch.float64)
        sine, cosine = torch.sin(0.5 * math.pi * u), torch.sin(0.5 * math.pi * (1.0 - u))
        return sine / (sine + cosine)

    def cdf(self, value: Tensor) -> Tensor:
        """``(2 / pi) atan2(t, 1 - t)``."""
        t = value.to(torch.float64).clamp(0.0, 1.0)
        return torch.atan2(t, 1.0 - t) * (2.0 / math.pi)

    def pdf(self, value: Tensor) -> Tensor:
        t = value.to(torch.float64)
        density = 2.0 / (math.pi * (t**2 + (1.0 - t) ** 2))
        return torch.where((t >= 0.0) & (t <= 1.0), density, 0.0)
