"""Shortcut's time distribution: steps of length 1, 1/2, 1/4, ... on the grid of that length."""

import torch
from torch import Tensor

from flowexp.paths import Schedule
from flowexp.paths.base import as_float64
from flowexp.timesteps.base import IntervalDistribution, spread

__all__ = ["Dyadic"]


class Dyadic(IntervalDistribution):
    """Steps ``r = t - 2^-j`` with t on the grid of multiples of ``2^-j``, at most 1.

    A batch of n has ``floor(bootstrap n)`` bootstrap rows, whose targets are two half steps: equal
    numbers of each length 1, 1/2, ..., 2/steps, and any remaining rows of length 1. All other rows,
    the flow-matching rows, have the shortest step: r = t - 1/steps, not r = t. Both kinds, and all
    lengths, are spread evenly over the batch. For each length, t is uniform over the grid points
    from 1 down to ``2^-j``.

    Args:
        steps: Number of steps of the finest grid, a power of 2, at least 4.
        bootstrap: Share of bootstrap rows, in [0, 1].
        favour_long: Whether the lengths 1 and 1/2 each get a quarter of the bootstrap rows, and
            every shorter length a share of ``1/(2 log2(steps))``; remaining rows have length 1.

    Raises:
        ValueError: steps or bootstrap is out of range.

    Source: Frans et al., Shortcut, 2024, arXiv 2410.12557, section 4; the counts are those of the
    authors' code (``bootstrap_every`` 8; ``bootstrap_dt_bias`` = favour_long).
    """

    drawn_end = ""
    uniforms = 1

    def __init__(
        self, *, steps: int = 128, bootstrap: float = 0.125, favour_long: bool = False
    ) -> None:
        super().__init__()
        if not (steps >= 4 and steps & (steps - 1) == 0):
            raise ValueError(f"steps is {steps}; expected a power of 2, at least 4")
        if not 0.0 <= bootstrap <= 1.0:
            raise ValueError(f"bootstrap is {bootstrap}; expected a share in [0, 1]")
        self.steps = int(steps)
        self.bootstrap = float(bootstrap)
        self.anchored = 1.0 - self.bootstrap
        self.favour_long = favour_long

    def exponents(self, n: int) -> Tensor:
        """The exponents j of the steps ``2^-j`` of a batch of n rows; (n,), int64."""
        longer = spread(n, self.bootstrap)
        j = torch.full((n,), self.steps.bit_length() - 1)
        counts = self._counts(int(longer.sum()))
        # Mixed, so that any part of the batch has about equally many of each length.
        place = torch.cat([(torch.arange(count) + 0.5) / count for count in counts])
        each = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        j[longer] = each[place.argsort(stable=True)]
        return j

    def _counts(self, rows: int) -> list[int]:
        """How many of ``rows`` have the step ``2^-j``, for j = 0 .. log2(steps) - 1."""
        lengths = self.steps.bit_length() - 1
        if self.favour_long:
            counts = [rows // 4, rows // 4] + [rows // 2 // lengths] * (lengths - 2)
        else:
            counts = [rows // lengths] * lengths
        counts[0] += rows - sum(counts)
        return counts

    def quantile(self, u: Tensor, *, schedule: Schedule) -> Tensor:
        """Times of a batch of ``len(u)`` rows, in order."""
        grid = 2.0 ** self.exponents(len(u)).to(u.device, torch.float64)
        k = torch.minimum((as_float64(u[:, 0]) * grid).floor(), grid - 1.0)
        return torch.stack([(grid - k) / grid, (grid - k - 1.0) / grid], dim=1)
