"""Rectified flow's authors' convention: time and velocity run from noise to data."""

from torch import Tensor, nn

from flowexp.parameterizations.base import Conditions, NetworkInputs
from flowexp.parameterizations.direct import VelocityPrediction
from flowexp.paths import Coefficients, Schedule

__all__ = ["ReversedVelocityPrediction"]


class ReversedVelocityPrediction(VelocityPrediction):
    """``F(x_t, time_scale (1 - t)) = -v``: networks trained with time 0 at noise and 1 at data.

    Published rectified flows keep their weights unchanged this way.

    Args:
        time_scale: Factor of ``1 - unit_time(t)`` in c_noise; 999 in the authors' code.

    Source: Liu et al., 2022, arXiv 2209.03003, and the authors' ``sde_lib.py`` (t_src = 1 - t).
    """

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        forward = super().inputs(schedule, t, c)
        return NetworkInputs(forward.c_in, self.time_scale - forward.c_noise)

    def evaluate(
        self, network: nn.Module, x: Tensor, c_noise: Tensor, conditions: Conditions
    ) -> Tensor:
        """The velocity: minus the network's output."""
        return -super().evaluate(network, x, c_noise, conditions)
