"""Update rules of few steps, of the code of rectified flow and RF++."""

import torch
from torch import Tensor

from flowexp.paths import Prediction
from flowexp.paths.conversions import FromVelocity
from flowexp.samplers.base import TimeGrid
from flowexp.samplers.field import Field, Intervals, States
from flowexp.samplers.fixed_step import FixedStepSampler
from flowexp.seeding import Noise

__all__ = ["LaggedEuler", "Reinterpolation"]


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


class Reinterpolation(FixedStepSampler):
    """``x' = alpha' D + sigma' e_0``, with the predicted data D and the source draw of the start.

    Where Euler's method and DDIM take the predicted noise, this takes
    ``e_0 = x_{t_0} / sigma(t_max)``. The two are the same if the flow is straight, and in a first
    step from where alpha is 0. On the linear path ``x' = (1 - t') (x_t - t v) + t' x_{t_0}``. It is
    not a discretisation of the ODE: for a flow that is not straight, more steps do not lead to its
    solution.

    Args:
        time_grid: The times between the steps (RF++: inset_uniform).
        heun: Take D from the mean of the velocities at the step's two ends, the second one at the
            re-interpolated state; the step to t = 0 has one evaluation (2N - 1 in all). Else N.

    Source: Lee et al., RF++, 2024, arXiv 2405.20320 (their "new" update rule), and generate.py. The
    draw of the start is the state at 1 - 1e-5 itself, not divided by 1 - 1e-5; followed here.
    """

    invertible = False

    def __init__(
        self, *, steps: int, time_grid: TimeGrid, heun: bool = False, double: bool = True
    ) -> None:
        super().__init__(steps=steps, time_grid=time_grid, double=double)
        self.heun = heun

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        last = torch.tensor(field.schedule.t_max, dtype=torch.float64)
        source = z / float(field.schedule.coefficients(last).sigma)
        levels = field.levels([interval.end for interval in intervals])
        for interval, (alpha, sigma) in zip(intervals, levels, strict=True):
            prediction = field.predict(z, interval.start)
            if self.heun and not interval.reaches_data:
                ahead = torch.add(prediction.data * alpha, source, alpha=sigma)
                second = field.predict(ahead, interval.end)
                velocity = 0.5 * (prediction.velocity + second.velocity)
                rule = FromVelocity(prediction.coefficients)
                prediction = Prediction(prediction.path, prediction.x_t, velocity, rule)
            z = torch.add(prediction.data * alpha, source, alpha=sigma)
            yield z
