"""EDM's table 1 on any path: its own preconditioning, and those of VP, VE and iDDPM."""

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from flowexp.parameterizations.base import (
    BetweenLevels,
    Conditions,
    NetworkInputs,
    PredictsNoise,
    times_between,
)
from flowexp.paths import VP, Coefficients, Conversion, Schedule
from flowexp.paths.conversions import FromPreconditioned
from flowexp.requirements import Parts, Unmet, all_of, on_deviation

__all__ = ["EDMPreconditioning", "VPPreconditioning", "VEPreconditioning", "IDDPMPreconditioning"]


class EDMPreconditioning(BetweenLevels):
    """``D(x; sigma) = c_skip x + c_out F(c_in x, c_noise)``, carried over to any path.

    On the VE path: ``c_skip = sd^2/(sigma^2+sd^2)``, ``c_out = sigma sd/sqrt(sigma^2+sd^2)``,
    ``c_in = 1/sqrt(sigma^2+sd^2)``, ``c_noise = ln(sigma)/4``. On another path it is the same
    denoiser at ``x_t/alpha`` and ``sigma/alpha``: ``c_in = 1/sqrt(alpha^2 sd^2 + sigma^2)``,
    ``c_noise = ln(sigma/alpha)/4``; a network trained on one path can be sampled on any other.

    Args:
        sigma_data: Standard deviation of the data (0.5 for images in [-1, 1]), > 0.
        sigma_min: Smallest noise level at which samplers evaluate the velocity, > 0.
        sigma_max: Largest one; sampling starts there on paths that end in pure noise, where
            ``ln(sigma/alpha)`` is infinite. Training is not restricted to this range.
        time_scale: The noise input is ``time_scale`` times the unit time instead of c_noise above,
            > 0; None = c_noise.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column "Ours".
    """

    needs_signal = True
    later_options: ClassVar[Mapping[str, object]] = {"time_scale": None}

    def __init__(
        self,
        *,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        time_scale: float | None = None,
    ) -> None:
        if not sigma_data > 0.0:
            raise ValueError(f"sigma_data is {sigma_data}; expected a positive number")
        if time_scale is not None and not time_scale > 0.0:
            raise ValueError(f"time_scale is {time_scale}; expected a positive number or null")
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max)
        self.sigma_data = float(sigma_data)
        self.time_scale = None if time_scale is None else float(time_scale)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Besides what every parameterization needs, data whose deviation is ``sigma_data``."""
        yield from all_of(super().needs(parts), on_deviation(parts, self.sigma_data))

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        c_in = torch.rsqrt((c.alpha * self.sigma_data) ** 2 + c.sigma**2)
        if self.time_scale is not None:
            return NetworkInputs(c_in, self.time_scale * schedule.unit_time(t))
        return NetworkInputs(c_in, 0.25 * (torch.log(c.sigma) - torch.log(c.alpha)))

    def conversion(self, c: Coefficients) -> Conversion:
        return FromPreconditioned(c, sigma_data=self.sigma_data)


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


class VEPreconditioning(BetweenLevels, PredictsNoise):
    """``D(x; sigma) = x + sigma F(x, ln(sigma / 2))``: score-SDE on VE.

    The network gives sigma times the score, minus the noise. On another path it is the same
    denoiser at ``x_t/alpha`` and ``sigma/alpha``, so ``c_in = 1/alpha``: the standard deviation of
    the network's input grows with sigma/alpha.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column VE; Song et al., 2021, arXiv
    2011.13456 (NCSN++).
    """

    def __init__(self, *, sigma_min: float = 0.02, sigma_max: float = 100.0) -> None:
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max)

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        log_nsr = torch.log(c.sigma) - torch.log(c.alpha)
        return NetworkInputs(1.0 / c.alpha, log_nsr - math.log(2.0))

    def evaluate(
        self, network: nn.Module, x: Tensor, c_noise: Tensor, conditions: Conditions
    ) -> Tensor:
        """The noise: minus the network's output, which is sigma times the score."""
        return -super().evaluate(network, x, c_noise, conditions)


class IDDPMPreconditioning(PredictsNoise):
    """``D(x; sigma) = x - sigma F(x / sqrt(sigma^2 + 1), M - 1 - j)``: improved DDPM's networks.

    F's first channels are the noise; the network may have as many again for a variance, which is
    not used (``network.out_channels``). j is the number of the level u_j nearest to sigma, with
    ``abar_j = sin^2(pi j / (2 M (C2 + 1)))``, ``u_M = 0`` and
    ``u_{j-1}^2 + 1 = (u_j^2 + 1) / max(abar_{j-1}/abar_j, C1)``. Only the network's time condition
    is rounded; the noise level itself is used exactly. On another path it is the same denoiser at
    ``x_t/alpha`` and ``sigma/alpha``.

    Args:
        C1: Smallest ratio of neighbouring abar, in (0, 1).
        C2: Offset of the angle, >= 0.
        time_steps: M, the number of levels above 0, >= 2.

    Attributes:
        levels: ``u_M = 0, u_{M-1}, ..., u_0``, increasing, (M + 1,), float64.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column iDDPM + DDIM; Nichol &
    Dhariwal, 2021, arXiv 2102.09672. EDM's code keeps the levels in float32, which moves them by up
    to 5e-4; here they are float64.
    """

    def __init__(self, *, C1: float = 1e-3, C2: float = 8e-3, time_steps: int = 1000) -> None:
        if not 0.0 < C1 < 1.0:
            raise ValueError(f"C1 is {C1}; expected a number in (0, 1)")
        if not C2 >= 0.0:
            raise ValueError(f"C2 is {C2}; expected a number >= 0")
        if time_steps < 2:
            raise ValueError(f"time_steps is {time_steps}; expected at least 2")
        self.C1 = float(C1)
        self.C2 = float(C2)
        self.time_steps = int(time_steps)
        self.levels = self._levels()

    def output_channels(self, channels: int) -> tuple[int, ...]:
        """The noise, and perhaps a variance of each channel."""
        return channels, 2 * channels

    def alpha_bar(self, j: Tensor) -> Tensor:
        """``sin^2(pi j / (2 M (C2 + 1)))``: the squared signal at level j, float64."""
        angle = 0.5 * torch.pi * j.to(torch.float64) / (self.time_steps * (self.C2 + 1.0))
        return torch.sin(angle) ** 2

    def index(self, nsr: Tensor) -> Tensor:
        """The number j of the level nearest to each noise level, int64; M is level 0."""
        midpoints = (0.5 * (self.levels[1:] + self.levels[:-1])).to(nsr.device)
        return self.time_steps - torch.bucketize(nsr, midpoints)

    def nearest_time(self, schedule: Schedule, t: Tensor) -> Tensor:
        # Computed for the whole table: the same level must give the same time, to the last bit.
        times = schedule.time_at_nsr(self.levels.to(t.device))
        return times[self.time_steps - self.index(schedule.nsr(t))]

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        step = (self.time_steps - 1) - self.index(c.sigma / c.alpha)
        return NetworkInputs(torch.rsqrt(c.alpha**2 + c.sigma**2), step.to(torch.float64))

    def evaluate(
        self, network: nn.Module, x: Tensor, c_noise: Tensor, conditions: Conditions
    ) -> Tensor:
        """The noise: as many of the first channels as the state has."""
        return super().evaluate(network, x, c_noise, conditions)[:, : x.shape[1]]

    def time_range(self, schedule: Schedule) -> tuple[float, float]:
        times = schedule.time_at_nsr(self.levels)
        return max(schedule.t_min, float(times[1])), min(schedule.t_max, float(times[-1]))

    def _levels(self) -> Tensor:
        abar = self.alpha_bar(torch.arange(self.time_steps + 1))
        # With log(1 + u^2), the recursion is a sum.
        log_ratio = torch.log(abar[:-1]) - torch.log(abar[1:])
        steps = -log_ratio.clamp(min=float(torch.log(torch.tensor(self.C1, dtype=torch.float64))))
        total = torch.cumsum(steps.flip(0), dim=0)
        return torch.cat([total.new_zeros(1), torch.sqrt(torch.expm1(total))])
