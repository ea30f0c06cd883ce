"""RF++'s update rule: each step starts again from the source draw."""

import torch
from torch import Tensor

from flowexp.paths import Prediction
from flowexp.paths.conversions import FromVelocity
from flowexp.samplers.base import TimeGrid
from flowexp.samplers.field import Field, Intervals, States
from flowexp.samplers.fixed_step import FixedStepSampler
from flowexp.seeding import Noise

__all__ = ["Reinterpolation"]


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
