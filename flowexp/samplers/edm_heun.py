"""Samplers that step in the noise-to-signal ratio, on any path: EDM's and k-diffusion's DPM-2."""

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from flowexp.requirements import Extended, Parts, Unmet
from flowexp.samplers.base import TimeGrid
from flowexp.samplers.field import Field, Intervals, NoiseToSignal, States
from flowexp.samplers.fixed_step import FixedStepSampler, SteppingInTime
from flowexp.samplers.noise_grids import EDMGrid
from flowexp.samplers.perturbations import Churn
from flowexp.samplers.runge_kutta import Heun
from flowexp.seeding import Noise

__all__ = ["EDMHeun", "DPM2"]


class EDMHeun(Heun):
    """Heun's method in ``n = sigma/alpha`` with state ``x_t/alpha`` and optional churn.

    ``z' = z + (n' - n) e(z, n)``, corrected by the trapezoid rule except in the step to n = 0,
    which returns the denoised state: N steps cost 2N - 1 evaluations. On the VE path this is EDM's
    algorithm 2; on any other path it takes the same steps through the same denoiser.

    Args:
        time_grid: The times between the steps; sigma/alpha must be finite at its start.
        S_churn, S_min, S_max, S_noise: See :class:`Churn`; without churn it is deterministic.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, algorithms 1 and 2.
    """

    def __init__(
        self,
        *,
        steps: int,
        time_grid: TimeGrid,
        final_euler: bool | None = True,
        S_churn: float = 0.0,
        S_min: float = 0.0,
        S_max: Extended = math.inf,
        S_noise: float = 1.0,
        double: bool = True,
        analytic_first_step: bool = False,
    ) -> None:
        churn = Churn(S_churn=S_churn, S_min=S_min, S_max=S_max, S_noise=S_noise)
        super().__init__(
            steps=steps,
            time_grid=time_grid,
            variable=NoiseToSignal(),
            final_euler=final_euler,
            perturbation=churn if S_churn > 0.0 else None,
            double=double,
            analytic_first_step=analytic_first_step,
        )

    def noise_needs(self, parts: Parts) -> Iterator[Unmet]:
        """What churn needs, whose arguments are the sampler's own here."""
        if self.perturbation is not None:
            yield from self.perturbation.needs(parts)


class DPM2(FixedStepSampler):
    """The second-order method in ``n = sigma/alpha`` with a geometric mean as the inner node.

    ``m = n'^r n^(1-r)``, ``z_m = z + (m - n) k``, ``z' = z + (n' - n) [(1 - 1/(2r)) k + k_m/(2r)]``
    with the slopes ``k = e(z, n)``, ``k_m = e(z_m, m)``; r = 1/2 is the midpoint rule. The step to
    n = 0 is Euler's, so that N steps cost 2N - 1 evaluations, and 2N on a grid that ends above 0.

    Args:
        time_grid: The times between the steps; sigma/alpha must be finite at its start.
        r: Place of the inner node in log-SNR, in (0, 1].

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, after DPM-Solver-2 of Lu et al., 2022, arXiv
    2206.00927, algorithm 4; k-diffusion's sample_dpm_2 takes the steps in n, as here. r from
    zju-pi/diff-sampler, ``dpm_2_sampler``.
    """

    later_options: ClassVar[Mapping[str, object]] = {**FixedStepSampler.later_options, "r": 0.5}

    def __init__(self, *, r: float = 0.5, **stepping: Unpack[SteppingInTime]) -> None:
        super().__init__(variable=NoiseToSignal(), **stepping)
        if not 0.0 < r <= 1.0:
            raise ValueError(f"r is {r}; expected a number in (0, 1]")
        self.r = float(r)

    def default_grid(self) -> TimeGrid:
        return EDMGrid()

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        r = self.r
        middles = field.nodes_of([i.end.u**r * i.start.u ** (1.0 - r) for i in intervals])
        for interval, middle in zip(intervals, middles, strict=True):
            slope = field.slope(z, interval.start)
            if interval.end.u > 0.0:
                z_middle = torch.add(z, slope, alpha=middle.u - interval.start.u)
                slope = torch.lerp(slope, field.slope(z_middle, middle), 0.5 / r)
            z = torch.add(z, slope, alpha=interval.length)
            yield z
