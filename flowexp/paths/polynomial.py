"""The polynomial convex path."""

import torch
from torch import Tensor

from flowexp.paths.base import Coefficients, Schedule

__all__ = ["Polynomial"]


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
