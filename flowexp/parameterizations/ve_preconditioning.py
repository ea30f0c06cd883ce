"""The preconditioning of EDM's VE column, on any path."""

import math

import torch
from torch import Tensor

from flowexp.parameterizations.base import NetworkInputs, Parameterization, times_between
from flowexp.paths import Coefficients, Conversion, Schedule
from flowexp.paths.conversions import FromNegativeNoise

__all__ = ["VEPreconditioning"]


class VEPreconditioning(Parameterization):
    """``D(x; sigma) = x + sigma F(x, ln(sigma / 2))``: score-SDE on VE.

    F is minus the noise, sigma times the score. On another path it is the same denoiser at
    ``x_t/alpha`` and ``sigma/alpha``, so ``c_in = 1/alpha``. The network's input is not scaled: its
    standard deviation grows with sigma/alpha, and networks have to cope with that themselves.

    Args:
        sigma_min: Smallest noise-to-signal ratio at which samplers ask, > 0.
        sigma_max: Largest one.

    Raises:
        ValueError: Not 0 < sigma_min < sigma_max.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column VE; Song et al., 2021, arXiv
    2011.13456 (NCSN++).
    """

    needs_signal = True

    def __init__(self, *, sigma_min: float = 0.02, sigma_max: float = 100.0) -> None:
        if not 0.0 < sigma_min < sigma_max:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max, got sigma_min={sigma_min}, sigma_max={sigma_max}"
            )
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        log_nsr = torch.log(c.sigma) - torch.log(c.alpha)
        return NetworkInputs(1.0 / c.alpha, log_nsr - math.log(2.0))

    def conversion(self, c: Coefficients) -> Conversion:
        return FromNegativeNoise(c)

    def time_range(self, schedule: Schedule) -> tuple[float, float]:
        return times_between(schedule, self.sigma_min, self.sigma_max)
