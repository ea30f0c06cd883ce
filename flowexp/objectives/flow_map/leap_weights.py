"""Loss weights that depend on more than one time of a leap."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowexp.objectives.flow_map.leaps import Leap
from flowexp.paths import Schedule
from flowexp.requirements import Part

__all__ = ["BoundaryRows", "InverseGap", "LeapWeight", "UniformLeaps"]

_PUT_ABOVE = 1e-8


class LeapWeight(Part, ABC):
    """The loss weight of the rows of a batch, a factor beside that of t alone."""

    @abstractmethod
    def __call__(self, leap: Leap, schedule: Schedule) -> Tensor:
        """The weights, (B,), float64."""


class UniformLeaps(LeapWeight):
    """Weight 1."""

    def __call__(self, leap: Leap, schedule: Schedule) -> Tensor:
        return torch.ones_like(leap.t)


class InverseGap(LeapWeight):
    """``1/(nsr(t) - nsr(s))^power``, with the end s of the first leg; r if no s is drawn.

    On the VE path that is ``1/(t - s)``; 0 where alpha is 0.

    Args:
        power: Exponent, > 0.

    Source: Song & Dhariwal, iCT, 2023, arXiv 2310.14189; Geng et al., ECT, 2024, arXiv 2406.14548;
    Lee et al., TCM, 2024, arXiv 2410.14895, as in the authors' loss.py ("default" is power = 1,
    "sqrt" 1/2).
    """

    def __init__(self, *, power: float = 1.0) -> None:
        if not power > 0.0:
            raise ValueError(f"power is {power}; expected a positive number")
        self.power = float(power)

    def __call__(self, leap: Leap, schedule: Schedule) -> Tensor:
        end = leap.r if leap.middle is None else leap.middle
        gap = schedule.nsr(leap.t) - schedule.nsr(end)
        return gap**-self.power


class BoundaryRows(LeapWeight):
    """Rows at a boundary have a mean of their own: ``mean(others) + weight mean(boundary)``.

    Rows belong to it whose t is at most 1e-8 above the boundary, where the law of the times puts a
    share of them. The means are those of the rows in one call, a process's share or a micro-batch;
    laws spread such rows evenly over a batch.

    Args:
        of: Weight of a row before that.
        at: The boundary t', a time of the path.
        weight: Weight of the boundary's mean, >= 0.

    Source: Lee et al., TCM, 2024, arXiv 2410.14895, eq. 13, as in the authors' loss.py.
    """

    def __init__(self, *, of: LeapWeight, at: float = 1.0, weight: float = 0.1) -> None:
        if not weight >= 0.0:
            raise ValueError(f"weight is {weight}; expected a number >= 0")
        self.of = of
        self.at = float(at)
        self.weight = float(weight)

    def __call__(self, leap: Leap, schedule: Schedule) -> Tensor:
        here = leap.t <= self.at + 2.0 * _PUT_ABOVE
        count = here.sum(dtype=torch.float64)
        share = torch.where(here, self.weight / count, 1.0 / (len(here) - count))
        return share * len(here) * self.of(leap, schedule)
