"""The cosine schedule of improved DDPM in continuous time."""

import math

import torch
from torch import Tensor

from flowexp.paths.base import Coefficients, Schedule

__all__ = ["Cosine"]


class Cosine(Schedule):
    """``alpha = cos(b) / cos(a)``, ``sigma = sqrt(1 - alpha^2)``.

    Here ``a = s/(1+s) pi/2`` and ``b = (t+s)/(1+s) pi/2``;
    ``sigma = sqrt(sin(b - a) sin(b + a)) / cos(a)`` avoids the cancellation in ``1 - alpha^2``.

    Args:
        s: Offset that keeps the noise rate finite near the data, > 0 (0.008 as published).
        t_min: Smallest time, > 0: sigma' is infinite at 0.
        t_max: Largest time; alpha vanishes at 1, where the published schedule clips beta at 0.999.

    Source: Nichol & Dhariwal, Improved DDPM, 2021, arXiv 2102.09672, eq. 17.
    """

    needs_positive_t_min = True
    grid_floor = 1e-3
    ends_in_source = True

    def __init__(self, *, s: float = 0.008, t_min: float = 1e-5, t_max: float = 0.999) -> None:
        super().__init__(t_min, t_max)
        if not s > 0:
            raise ValueError(f"s is {s}; expected a positive offset")
        self.s = float(s)
        self._rate = math.pi / (2.0 * (1.0 + s))

    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients; the Wronskian is ``-alpha' / sigma``."""
        a = self._rate * self.s
        scale = 1.0 / math.cos(a)
        alpha = scale * torch.sin(self._rate * (1.0 - t))
        sigma = scale * torch.sqrt(torch.sin(self._rate * t) * torch.sin(self._rate * t + 2.0 * a))
        d_alpha = -scale * self._rate * torch.cos(self._rate * (1.0 - t))
        return Coefficients(alpha, sigma, d_alpha, -alpha * d_alpha / sigma, -d_alpha / sigma)

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        """Inverse through the angle b - a, whose sine and cosine are formed without cancellation.

        ``cos b = alpha cos a``, ``sin^2 b = sin^2 a + sigma^2 cos^2 a``, and
        ``sin(b - a) = (sin^2 b - sin^2 a) / sin(b + a)``.
        """
        sin_a, cos_a = math.sin(self._rate * self.s), math.cos(self._rate * self.s)
        alpha = 1.0 / torch.sqrt(1.0 + nsr**2)
        sigma = torch.where(torch.isinf(nsr), torch.ones_like(nsr), nsr * alpha)
        cos_b = alpha * cos_a
        sin_b = torch.sqrt(sin_a**2 + (sigma * cos_a) ** 2)
        sin_sum = sin_b * cos_a + cos_b * sin_a
        angle = torch.atan2((sigma * cos_a) ** 2 / sin_sum, cos_b * cos_a + sin_b * sin_a)
        return angle / self._rate

    def identity(self) -> str:
        return f"Cosine(s={self.s}, t_min={self.t_min}, t_max={self.t_max})"
