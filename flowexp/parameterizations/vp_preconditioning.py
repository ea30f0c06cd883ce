"""The preconditioning of EDM's VP column, on any path."""

import torch
from torch import Tensor

from flowexp.parameterizations.base import NetworkInputs, PredictsNoise, times_between
from flowexp.paths import VP, Coefficients, Schedule

__all__ = ["VPPreconditioning"]


class VPPreconditioning(PredictsNoise):
    """``D(x; sigma) = x - sigma F(x / sqrt(sigma^2 + 1), (M - 1) t(sigma))``: score-SDE on VP.

    F is the noise. t(sigma) is the time at which a VP path has this noise level. On another path it
    is the same denoiser at ``x_t/alpha`` and ``sigma/alpha``, so
    ``c_in = 1/sqrt(alpha^2 + sigma^2)``: 1 on every variance-preserving path.

    Args:
        beta_min: Noise rate of that VP path at the data end, > 0.
        beta_max: Noise rate at the source end (EDM's beta_d = 19.9 is beta_max - beta_min).
        time_steps: M, the number of steps in which the network counts time, >= 2.
        eps_t: Smallest VP time at which samplers evaluate the velocity, in (0, 1).

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column VP; Song et al., 2021, arXiv
    2011.13456.
    """

    def __init__(
        self,
        *,
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        time_steps: int = 1000,
        eps_t: float = 1e-5,
    ) -> None:
        if time_steps < 2:
            raise ValueError(f"time_steps is {time_steps}; expected at least 2")
        self.reference = VP(beta_min=beta_min, beta_max=beta_max, t_min=eps_t)
        self.time_steps = int(time_steps)

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        time = self.reference.time_at_nsr(c.sigma / c.alpha)
        return NetworkInputs(torch.rsqrt(c.alpha**2 + c.sigma**2), (self.time_steps - 1) * time)

    def time_range(self, schedule: Schedule) -> tuple[float, float]:
        ends = torch.tensor([self.reference.t_min, self.reference.t_max], dtype=torch.float64)
        return times_between(schedule, *self.reference.nsr(ends).tolist())
