"""The trigonometric path (GVP of SiT, TrigFlow, stochastic interpolants)."""

import math

import torch
from torch import Tensor

from flowexp.paths.base import Coefficients, Schedule

__all__ = ["Trigonometric"]

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
