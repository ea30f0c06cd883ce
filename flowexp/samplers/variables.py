"""The variable in which a solver takes its steps.

A step of Heun's method in t is not a step of Heun's method in the noise level: on every path that
is not straight they are different methods, so the variable is a choice of its own.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowexp.paths import Prediction, Schedule

__all__ = ["NoiseToSignal", "Time", "Variable"]


class Variable(ABC):
    """Independent variable ``u(t)``, scaled state ``z = x_t / scale(t)``, and slope ``dz/du``."""

    @abstractmethod
    def value(self, schedule: Schedule, t: Tensor) -> Tensor:
        """``u(t)``, float64, of the shape of t; increasing."""

    @abstractmethod
    def time(self, schedule: Schedule, u: Tensor) -> Tensor:
        """``t(u)``: inverse of :meth:`value`."""

    @abstractmethod
    def scale(self, schedule: Schedule, t: Tensor) -> Tensor:
        """Factor with ``x_t = scale z``, float64, of the shape of t."""

    @abstractmethod
    def slope(self, prediction: Prediction) -> Tensor:
        """``dz/du`` where the prediction was made."""


class Time(Variable):
    """``u = t``, ``z = x_t``, ``dz/du = v``: the path's own time."""

    def value(self, schedule: Schedule, t: Tensor) -> Tensor:
        return t

    def time(self, schedule: Schedule, u: Tensor) -> Tensor:
        return u

    def scale(self, schedule: Schedule, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def slope(self, prediction: Prediction) -> Tensor:
        return prediction.velocity


class NoiseToSignal(Variable):
    """``u = sigma / alpha``, ``z = x_t / alpha``, ``dz/du = e``: EDM's variable, on any path.

    All paths with the same source have the same trajectories in it, and its slope needs no time
    derivative; Euler in it is DDIM. It is infinite where alpha is 0.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, eq. 4 with s(t) = 1; Song et al., DDIM,
    2020, arXiv 2010.02502, eq. 14.
    """

    def value(self, schedule: Schedule, t: Tensor) -> Tensor:
        return schedule.nsr(t)

    def time(self, schedule: Schedule, u: Tensor) -> Tensor:
        return schedule.time_at_nsr(u)

    def scale(self, schedule: Schedule, t: Tensor) -> Tensor:
        return schedule.coefficients(t).alpha

    def slope(self, prediction: Prediction) -> Tensor:
        return prediction.noise
