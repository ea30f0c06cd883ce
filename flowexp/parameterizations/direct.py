"""Networks whose output is itself a prediction: velocity, noise or data."""

import math

import torch
from torch import Tensor

from flowexp.parameterizations.base import (
    NetworkInputs,
    Parameterization,
    PredictsNoise,
    bounded_input_scale,
)
from flowexp.paths import Coefficients, Conversion, Schedule
from flowexp.paths.conversions import FromData, FromVelocity

__all__ = ["DataPrediction", "NoisePrediction", "VelocityPrediction"]


class _Direct(Parameterization):
    """F is a prediction; c_noise is ``time_scale * unit_time(t)``."""

    def __init__(self, *, time_scale: float = 1.0) -> None:
        if not (time_scale > 0 and math.isfinite(time_scale)):
            raise ValueError(f"time_scale is {time_scale}; expected a positive number")
        self.time_scale = float(time_scale)

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        return NetworkInputs(bounded_input_scale(c), self.time_scale * schedule.unit_time(t))


class VelocityPrediction(_Direct):
    """F is the velocity ``v = alpha' x + sigma' e``; defined on the whole of every path.

    Args:
        time_scale: Factor of the unit time in c_noise, > 0. SiT and torchcfm use t itself (1);
            score-SDE and rectified flow's code 999 t, DDPM the step index. A larger factor makes
            the velocity less smooth in time, and an adaptive solver takes more steps.

    Source: Lipman et al., 2022, arXiv 2210.02747; Liu et al., 2022, arXiv 2209.03003.
    """

    def conversion(self, c: Coefficients) -> Conversion:
        return FromVelocity(c)


class NoisePrediction(_Direct, PredictsNoise):
    """F is the noise e. Singular where alpha = 0, so sampling starts at ``alpha = min_alpha``.

    Args:
        time_scale: See :class:`VelocityPrediction`.
        min_alpha: Smallest alpha relative to ``sqrt(alpha^2 + sigma^2)`` at which samplers evaluate
            the velocity, in (0, 1); SiT keeps 1e-3 away from the end with this head.

    Source: Ho et al., DDPM, 2020, arXiv 2006.11239, eq. 14; Ma et al., SiT, 2024, arXiv 2401.08740.
    """

    def __init__(self, *, time_scale: float = 1.0, min_alpha: float = 1e-3) -> None:
        super().__init__(time_scale=time_scale)
        if not 0.0 < min_alpha < 1.0:
            raise ValueError(f"min_alpha is {min_alpha}; expected a number in (0, 1)")
        self.min_alpha = float(min_alpha)

    def time_range(self, schedule: Schedule) -> tuple[float, float]:
        highest = math.sqrt(1.0 - self.min_alpha**2) / self.min_alpha
        return schedule.t_min, min(schedule.t_max, _time_at(schedule, highest))


class DataPrediction(_Direct):
    """F is the data x (a denoiser). Singular where sigma = 0, so sampling ends at ``min_sigma``.

    Args:
        time_scale: See :class:`VelocityPrediction`.
        min_sigma: Smallest noise level at which samplers evaluate the velocity, > 0.

    Source: Salimans & Ho, Progressive Distillation, 2022, arXiv 2202.00512, section 4 (prediction
    of x).
    """

    def __init__(self, *, time_scale: float = 1.0, min_sigma: float = 1e-3) -> None:
        super().__init__(time_scale=time_scale)
        if not min_sigma > 0.0:
            raise ValueError(f"min_sigma is {min_sigma}; expected a positive number")
        self.min_sigma = float(min_sigma)

    def conversion(self, c: Coefficients) -> Conversion:
        return FromData(c)

    def time_range(self, schedule: Schedule) -> tuple[float, float]:
        return max(schedule.t_min, _time_at(schedule, self.min_sigma)), schedule.t_max


def _time_at(schedule: Schedule, nsr: float) -> float:
    return float(schedule.time_at_nsr(torch.tensor(nsr, dtype=torch.float64)))
