"""Paths with rescaled noise."""

import math

from torch import Tensor

from flowexp.paths.base import Coefficients, Schedule

__all__ = ["ScaledNoise"]


class ScaledNoise(Schedule):
    """Another schedule with sigma multiplied by ``noise``.

    With ``noise`` equal to the standard deviation of the data, data and noise have the same
    standard deviation, as in IMM and TrigFlow.

    Args:
        of: The schedule whose sigma is scaled.
        noise: Factor, > 0.
        t_min: Smallest time; None = that of the schedule.
        t_max: Largest time; None = that of the schedule.
    """

    def __init__(
        self,
        *,
        of: Schedule,
        noise: float,
        t_min: float | None = None,
        t_max: float | None = None,
    ) -> None:
        if not 0.0 < noise < math.inf:
            raise ValueError(f"noise is {noise}; expected a finite positive number")
        self.of = of
        self.noise = float(noise)
        self.needs_positive_t_min = of.needs_positive_t_min
        self.grid_floor = of.grid_floor
        self.ends_in_source = of.ends_in_source
        super().__init__(of.t_min if t_min is None else t_min, of.t_max if t_max is None else t_max)

    def coefficients(self, t: Tensor) -> Coefficients:
        c, k = self.of.coefficients(t), self.noise
        return Coefficients(c.alpha, k * c.sigma, c.d_alpha, k * c.d_sigma, k * c.wronskian)

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        return self.of.time_at_nsr(nsr / self.noise)

    def unit_time(self, t: Tensor) -> Tensor:
        return self.of.unit_time(t)

    def natural_grid(self, steps: int, t_start: float, t_end: float) -> Tensor:
        return self.of.natural_grid(steps, t_start, t_end)

    def identity(self) -> str:
        of, times = self.of.identity(), f"t_min={self.t_min}, t_max={self.t_max}"
        return f"ScaledNoise({times}, of={of}, noise={self.noise})"
