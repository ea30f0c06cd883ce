"""Diffusion coefficients w(t) >= 0 of the SDE family that shares the path's marginals."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowexp.paths import Coefficients, Schedule

__all__ = [
    "SBDM",
    "Brownian",
    "Constant",
    "Decreasing",
    "Diffusion",
    "IncreasingDecreasing",
    "Linear",
    "Sigma",
]


class Diffusion(ABC):
    """The rate at which the SDE adds noise, and removes it by the score.

    Args:
        scale: Factor c of the form, >= 0; 0 is the ODE.
    """

    def __init__(self, *, scale: float = 1.0) -> None:
        if not scale >= 0.0:
            raise ValueError(f"scale is {scale}; expected a number >= 0")
        self.scale = float(scale)

    @abstractmethod
    def form(self, u: Tensor, c: Coefficients) -> Tensor:
        """W of unit time ``u`` in [0, 1] and of the schedule there; float64."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """W at float64 times ``t`` of the path."""
        return self.form(schedule.unit_time(t), schedule.coefficients(t))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(scale={self.scale})"


class Constant(Diffusion):
    """``w = c``."""

    def form(self, u: Tensor, c: Coefficients) -> Tensor:
        return torch.full_like(u, self.scale)


class Brownian(Diffusion):
    """``w = c^2 / 2``, with which paths of the SDE are those of a bridge with diffusion c.

    Any other w has the same marginals, but not the same joint distribution of two times.
    """

    def form(self, u: Tensor, c: Coefficients) -> Tensor:
        return torch.full_like(u, 0.5 * self.scale**2)


class SBDM(Diffusion):
    """``w = c sigma W / alpha``, W the Wronskian: the reverse SDE of score-based diffusion models.

    ``t / (1 - t)`` on the linear path, ``beta / 2`` on VP; infinite where alpha is 0.
    """

    def form(self, u: Tensor, c: Coefficients) -> Tensor:
        return self.scale * c.sigma * c.wronskian / c.alpha


class Sigma(Diffusion):
    """``w = c sigma(t)``."""

    def form(self, u: Tensor, c: Coefficients) -> Tensor:
        return self.scale * c.sigma


class Linear(Diffusion):
    """``w = c t``."""

    def form(self, u: Tensor, c: Coefficients) -> Tensor:
        return self.scale * u


class Decreasing(Diffusion):
    """``w = (1 - c cos(pi t))^2 / 4``, decreasing from the source to the data; not 0 for c = 0."""

    def form(self, u: Tensor, c: Coefficients) -> Tensor:
        return 0.25 * (1.0 - self.scale * torch.cos(math.pi * u)) ** 2


class IncreasingDecreasing(Diffusion):
    """``w = c sin^2(pi t)``, 0 at both ends."""

    def form(self, u: Tensor, c: Coefficients) -> Tensor:
        return self.scale * torch.sin(math.pi * u) ** 2
