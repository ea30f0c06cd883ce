"""Euler's method of rectified flow's code, whose network time runs behind the state's."""

import torch
from torch import Tensor

from flowexp.samplers.base import TimeGrid
from flowexp.samplers.field import Field, Intervals, States
from flowexp.samplers.fixed_step import FixedStepSampler
from flowexp.seeding import Noise

__all__ = ["LaggedEuler"]


class LaggedEuler(FixedStepSampler):
    """``x' = x + (t' - t) v(x, (1 - lag) t)``: Euler's steps with the network at an earlier time.

    With N equal steps from e at t = 1 the network gets the time ``1 - (i/N (1 - lag) + lag)`` while
    each step is 1/N long. Published numbers of few steps were made this way; plain
    ``sampler=euler`` gives the network the state's own time. On a grid that ends at t = lag all
    steps together move by 1 - lag: one step is SlimFlow's "one_step".

    Args:
        time_grid: The times between the steps (published: uniform).
        lag: Share of the time by which the network's is earlier, in [0, 1); 0 is Euler's method.

    Source: Liu et al., 2022, arXiv 2209.03003, and their sampling.py and sde_lib.py (lag = 1e-3);
    Zhu et al., SlimFlow, 2024, arXiv 2407.12718, whose sampling.py walks the other way likewise.
    """

    def __init__(
        self, *, steps: int, time_grid: TimeGrid, lag: float = 1e-3, double: bool = True
    ) -> None:
        super().__init__(steps=steps, time_grid=time_grid, double=double)
        if not 0.0 <= lag < 1.0:
            raise ValueError(f"lag is {lag}; expected a number in [0, 1)")
        self.lag = float(lag)

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        times = torch.tensor([interval.start.time for interval in intervals], dtype=torch.float64)
        lagged = ((1.0 - self.lag) * times).clamp(min=field.model.time_range[0])
        for interval, node in zip(intervals, field.nodes(lagged), strict=True):
            z = torch.add(z, field.slope(z, node), alpha=interval.length)
            yield z
