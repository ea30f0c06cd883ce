"""RF-Solver and FireFlow: second-order steps for the rectified-flow ODE and its inversion."""

import math
from typing import Unpack

import torch
from torch import Tensor

from flowexp.samplers.field import Field, Intervals, States
from flowexp.samplers.fixed_step import FixedStepSampler, Stepping
from flowexp.seeding import Noise

__all__ = ["FireFlow", "RFSolver"]


class RFSolver(FixedStepSampler):
    """``z' = z + h v + (h^2/2) v'`` with ``v' = (v(z + d v, u + d) - v) / d``: two evaluations.

    ``v'`` is the derivative along the trajectory, from a second evaluation the distance ``d`` ahead
    in the direction of travel. The released code takes ``d = h/2``, for which the formula is
    ``z + h v(z + h v/2, u + h/2)``: exactly :class:`~flowexp.samplers.Midpoint`, not another
    solver. The paper's text takes a small fixed d. A step whose second evaluation would lie where
    the model is not defined is Euler's.

    Args:
        fd_step: d in units of the variable, > 0, at most the length of the step (the paper: 0.01 of
            the time); None = half the step, as the released code.

    Source: Wang et al., Taming Rectified Flow for Inversion and Editing, 2024, arXiv 2411.04746,
    eq. 9 with n = 2.
    """

    def __init__(self, *, fd_step: float | None = None, **stepping: Unpack[Stepping]) -> None:
        super().__init__(**stepping)
        if fd_step is not None and not (fd_step > 0.0 and math.isfinite(fd_step)):
            raise ValueError(f"fd_step is {fd_step}; expected a positive number or null")
        self.fd_step = None if fd_step is None else float(fd_step)

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        distances = [self._distance(interval.length) for interval in intervals]
        ahead = [i.start.u + d for i, d in zip(intervals, distances, strict=True)]
        for interval, node, d in zip(intervals, field.nodes_of(ahead), distances, strict=True):
            h = interval.length
            slope = field.slope(z, interval.start)
            if not field.defined_at(node):
                z = torch.add(z, slope, alpha=h)
                yield z
                continue
            second = field.slope(torch.add(z, slope, alpha=d), node)
            # h v + (h^2/2)(v2 - v)/d = h ((1 - r) v + r v2) with r = h/(2d), 1 for the midpoint.
            ratio = 1.0 if self.fd_step is None or h == 0.0 else 0.5 * h / d
            z = torch.add(z, second, alpha=h * ratio)
            if ratio != 1.0:
                z.add_(slope, alpha=h * (1.0 - ratio))
            yield z

    def _distance(self, h: float) -> float:
        """D, with the sign of the step; not beyond its end, where the model may not be defined."""
        return 0.5 * h if self.fd_step is None else math.copysign(min(self.fd_step, abs(h)), h)


class FireFlow(FixedStepSampler):
    """The midpoint rule whose half step uses the last midpoint's slope: one evaluation a step.

    ``z_m = z + (h/2) v_last``, ``v_last = v(z_m, u + h/2)``, ``z' = z + h v_last``; the first step
    evaluates its own start, so that N steps cost N + 1. Of second order where the velocity changes
    slowly along the trajectory. A step whose midpoint lies where the model is not defined is
    Euler's.

    Source: Deng et al., FireFlow, 2024, arXiv 2412.07517, algorithm 1.
    """

    passes_over_empty = True

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        slope: Tensor | None = None
        for interval, node in zip(intervals, field.all_between(intervals, 0.5), strict=True):
            defined = field.defined_at(node)
            if slope is None or not defined:
                slope = field.slope(z, interval.start)
            if defined:
                slope = field.slope(torch.add(z, slope, alpha=0.5 * interval.length), node)
            z = torch.add(z, slope, alpha=interval.length)
            yield z
