"""Paths whose time is the unit interval itself: linear, polynomial, trigonometric and cosine."""

import math

import torch
from torch import Tensor

from flowexp.paths.base import Coefficients, Schedule

__all__ = ["Linear", "Polynomial", "Trigonometric", "Cosine"]


class Linear(Schedule):
    """``alpha = 1 - t``, ``sigma = sigma_min + (1 - sigma_min) t``: straight lines.

    The velocity is ``(1 - sigma_min) e - x``.

    Args:
        sigma_min: Noise left at the data end, in [0, 1). 0 is rectified flow and CondOT; Lipman et
            al. use a small positive number (their "OT path").

    Source: Liu et al., Flow Straight and Fast, 2022, arXiv 2209.03003, eq. 1; Lipman et al., Flow
    Matching for Generative Modeling, 2022, arXiv 2210.02747, eq. 20 (with t reversed).
    """

    ends_in_source = True

    def __init__(self, *, sigma_min: float = 0.0, t_min: float = 0.0, t_max: float = 1.0) -> None:
        super().__init__(t_min, t_max)
        if not 0.0 <= sigma_min < 1.0:
            raise ValueError(f"sigma_min is {sigma_min}; expected a number in [0, 1)")
        self.sigma_min = float(sigma_min)

    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients; the Wronskian is 1 for every ``sigma_min``."""
        one = torch.ones_like(t)
        span = 1.0 - self.sigma_min
        return Coefficients(1.0 - t, self.sigma_min + span * t, -one, span * one, one)

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        """``t = (nsr - sigma_min) / (nsr + 1 - sigma_min)``, 1 at infinity, not below 0."""
        span = 1.0 - self.sigma_min
        finite = ((nsr - self.sigma_min) / (nsr + span)).clamp(min=0.0)
        return torch.where(torch.isinf(nsr), torch.ones_like(nsr), finite)


class Polynomial(Schedule):
    """``alpha = (1 - t)^n``, ``sigma = 1 - (1 - t)^n``; n = 1 is the linear path.

    Args:
        n: Exponent, > 0.
        t_max: Largest time; for n > 1 the velocity's denominator vanishes at t = 1, so the default
            stays below it.

    Source: Lipman et al., Flow Matching Guide and Code, 2024, arXiv 2412.06264, section 4.
    """

    ends_in_source = True

    def __init__(self, *, n: float = 2.0, t_min: float = 0.0, t_max: float = 0.999) -> None:
        super().__init__(t_min, t_max)
        if not n > 0:
            raise ValueError(f"n is {n}; expected a positive exponent")
        self.n = float(n)

    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients; sigma by ``expm1`` so that it is exact near t = 0."""
        log_signal = torch.log1p(-t)
        alpha = torch.exp(self.n * log_signal)
        sigma = -torch.expm1(self.n * log_signal)
        slope = self.n * (1.0 - t) ** (self.n - 1.0)
        return Coefficients(alpha, sigma, -slope, slope, slope)

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        """``t = 1 - (1 + nsr)^(-1/n)``."""
        return -torch.expm1(-torch.log1p(nsr) / self.n)


_QUARTER = math.pi / 2.0


class Trigonometric(Schedule):
    """``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)``.

    Source: Albergo & Vanden-Eijnden, 2022, arXiv 2209.15571; Ma et al., SiT, 2024, arXiv 2401.08740
    (GVP).
    """

    ends_in_source = True

    def __init__(self, *, t_min: float = 0.0, t_max: float = 1.0) -> None:
        super().__init__(t_min, t_max)

    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients; alpha by ``sin(pi (1 - t) / 2)``, exactly 0 at t = 1."""
        alpha, sigma = torch.sin(_QUARTER * (1.0 - t)), torch.sin(_QUARTER * t)
        return Coefficients(
            alpha, sigma, -_QUARTER * sigma, _QUARTER * alpha, torch.full_like(t, _QUARTER)
        )

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        """``t = (2 / pi) arctan(nsr)``."""
        return torch.atan(nsr) / _QUARTER


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
