"""The variance-exploding path of EDM and PFGM++: time is sigma itself."""

import torch
from torch import Tensor

from flowexp.paths.base import Coefficients, Schedule

__all__ = ["VE", "edm_sigmas"]


def edm_sigmas(steps: int, *, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """EDM's noise levels: ``steps`` values from ``sigma_max`` to ``sigma_min``, then 0; float64.

    ``sigma_i = (smax^(1/rho) + i/(n-1) (smin^(1/rho) - smax^(1/rho)))^rho``; one step goes from
    ``sigma_max`` straight to 0.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, eq. 5.
    """
    ramp = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    high, low = sigma_max ** (1.0 / rho), sigma_min ** (1.0 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


class VE(Schedule):
    """``alpha = 1``, ``sigma = t``; velocity = noise.

    Args:
        t_min: Smallest noise level at which the network is evaluated, > 0.
        t_max: Noise level at which sampling starts.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364 (sigma(t) = t, s(t) = 1; 0.002 to 80).
    """

    needs_positive_t_min = True

    def __init__(self, *, t_min: float = 0.002, t_max: float = 80.0) -> None:
        super().__init__(t_min, t_max)

    def coefficients(self, t: Tensor) -> Coefficients:
        one, zero = torch.ones_like(t), torch.zeros_like(t)
        return Coefficients(one, t, zero, one, one)

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        return nsr

    def unit_time(self, t: Tensor) -> Tensor:
        """``sigma / (1 + sigma)``: the linear path's time at the same noise level."""
        return t / (1.0 + t)

    def natural_grid(self, steps: int, t_start: float, t_end: float) -> Tensor:
        """EDM's grid, rho = 7: ``steps`` noise levels from ``t_start`` to t_min, then ``t_end``.

        If ``t_end`` is not below t_min, it is the last of ``steps + 1`` noise levels.
        """
        if t_end >= self.t_min:
            grid = edm_sigmas(steps + 1, sigma_min=t_end, sigma_max=t_start, rho=7.0)[:-1]
        else:
            grid = edm_sigmas(steps, sigma_min=self.t_min, sigma_max=t_start, rho=7.0)
        grid[-1] = t_end
        return grid
