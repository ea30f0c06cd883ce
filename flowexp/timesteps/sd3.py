"""SD3's distributions: an adjustable mode in the middle, and the cosine path's noise levels."""

import math

import torch
from torch import Tensor

from flowexp.timesteps.base import TimestepDistribution

__all__ = ["Mode", "CosMap"]

_LARGEST_SCALE = 2.0 / (math.pi - 2.0)
_HALVINGS = 60


class Mode(TimestepDistribution):
    """``t = u + s (u - sin^2(pi u / 2))``, u uniform; s = 0 is uniform.

    s > 0 favours the middle of the path, s < 0 its two ends. The published form
    ``1 - u - s (cos^2(pi u / 2) - 1 + u)`` is this one at 1 - u.

    Args:
        s: Scale, in [-1, 2 / (pi - 2)] = [-1, 1.7519]: where t grows with u.

    Source: Esser et al., SD3, 2024, arXiv 2403.03206, section 3.1 (1.29 among those tried).
    """

    def __init__(self, *, s: float = 1.29) -> None:
        if not -1.0 <= s <= _LARGEST_SCALE:
            raise ValueError(f"s is {s}; expected a number in [-1, {_LARGEST_SCALE:.4f}]")
        self.s = float(s)

    def quantile(self, u: Tensor) -> Tensor:
        u = u.to(torch.float64)
        return u + self.s * (u - torch.sin(0.5 * math.pi * u) ** 2)

    def cdf(self, value: Tensor) -> Tensor:
        """The inverse of the quantile, by bisection to float64 accuracy."""
        value = value.to(torch.float64)
        u, width = torch.zeros_like(value), 1.0
        for _ in range(_HALVINGS):
            width *= 0.5
            u = torch.where(self.quantile(u + width) <= value, u + width, u)
        return torch.where(value >= 1.0, 1.0, u)

    def pdf(self, value: Tensor) -> Tensor:
        """``1 / (1 + s (1 - (pi/2) sin(pi u)))`` at ``u = cdf(value)``."""
        value = value.to(torch.float64)
        slope = 1.0 + self.s * (1.0 - 0.5 * math.pi * torch.sin(math.pi * self.cdf(value)))
        return torch.where((value >= 0.0) & (value <= 1.0), 1.0 / slope, 0.0)


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
