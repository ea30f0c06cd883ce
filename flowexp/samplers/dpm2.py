"""DPM-2 of k-diffusion."""

import math

import torch
from torch import Tensor

from flowexp.samplers.base import TimeGrid
from flowexp.samplers.field import Field, Intervals, NoiseToSignal, States
from flowexp.samplers.fixed_step import FixedStepSampler
from flowexp.seeding import Noise

__all__ = ["DPM2"]


class DPM2(FixedStepSampler):
    """The midpoint rule in ``n = sigma/alpha`` with the geometric mean as the middle.

    ``m = sqrt(n n')``, ``z_m = z + (m - n) e(z, n)``, ``z' = z + (n' - n) e(z_m, m)``; the step to
    n = 0 is Euler's, so that N steps cost 2N - 1 evaluations.

    Args:
        time_grid: The times between the steps; sigma/alpha must be finite at its start.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, after DPM-Solver-2 of Lu et al., 2022, arXiv
    2206.00927, algorithm 4; k-diffusion's sample_dpm_2 takes the steps in n, as here.
    """

    def __init__(self, *, steps: int, time_grid: TimeGrid, double: bool = True) -> None:
        super().__init__(steps=steps, time_grid=time_grid, variable=NoiseToSignal(), double=double)

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        middles = field.nodes_of([math.sqrt(i.start.u * i.end.u) for i in intervals])
        for interval, middle in zip(intervals, middles, strict=True):
            slope = field.slope(z, interval.start)
            if interval.end.u > 0.0:
                z_middle = torch.add(z, slope, alpha=middle.u - interval.start.u)
                slope = field.slope(z_middle, middle)
            z = torch.add(z, slope, alpha=interval.length)
            yield z
