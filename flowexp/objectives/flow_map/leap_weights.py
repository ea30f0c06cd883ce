"""Loss weights that depend on several times of a row."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowexp.objectives.flow_map.leaps import Draws
from flowexp.paths import Schedule
from flowexp.requirements import Part

__all__ = ["BoundaryRows", "InverseGap", "LeapWeight", "UniformLeaps"]

_PUT_ABOVE = 1e-8


class LeapWeight(Part, ABC):
    """Loss weights of the rows of a batch, in addition to the weighting in t."""

    @abstractmethod
    def __call__(self, rows: Draws, schedule: Schedule) -> Tensor:
        """The weights, (B,), float64; ``rows`` are a whole batch, over all processes."""


class UniformLeaps(LeapWeight):
    """Weight 1."""

    def __call__(self, rows: Draws, schedule: Schedule) -> Tensor:
        return torch.ones_like(rows.t)


class InverseGap(LeapWeight):
    """``1/(nsr(t) - nsr(s))^power``, with the noise-to-signal ratio ``nsr = sigma/alpha``.

    s is the end of the first leg, or r if no s is drawn. On the VE path with power 1 the weight is
    ``1/(t - s)``. It is 0 where alpha(t) = 0.

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

    def __call__(self, rows: Draws, schedule: Schedule) -> Tensor:
        end = rows.r if rows.s is None else rows.s
        gap = schedule.nsr(rows.t) - schedule.nsr(end)
        return gap**-self.power


class BoundaryRows(LeapWeight):
    """Rows at a boundary form a loss term of their own: ``mean(others) + weight mean(boundary)``.

    Boundary rows are those with t at most 2e-8 above the boundary, where the time distribution puts
    a share of the rows. The means are over the whole batch of a step, over all processes.

    Args:
        of: Weight of a row within its mean.
        at: The boundary t', a time of the path.
        weight: Weight of the mean of the boundary rows, >= 0.

    Raises:
        ValueError: weight is negative.

    Source: Lee et al., TCM, 2024, arXiv 2410.14895, eq. 13, as in the authors' loss.py.
    """

    def __init__(self, *, of: LeapWeight, at: float = 1.0, weight: float = 0.1) -> None:
        if not weight >= 0.0:
            raise ValueError(f"weight is {weight}; expected a number >= 0")
        self.of = of
        self.at = float(at)
        self.weight = float(weight)

    def __call__(self, rows: Draws, schedule: Schedule) -> Tensor:
        here = rows.t <= self.at + 2.0 * _PUT_ABOVE
        count = here.sum(dtype=torch.float64)
        share = torch.where(here, self.weight / count, 1.0 / (len(here) - count))
        return share * len(here) * self.of(rows, schedule)
