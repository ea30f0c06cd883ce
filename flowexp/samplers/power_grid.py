"""Time grids that are even in a power of t, between given times."""

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.samplers.base import TimeGrid

__all__ = ["PowerGrid"]

_LARGEST_NSR = 200.0
_SMALLEST_NSR = 0.002


class PowerGrid(TimeGrid):
    """``t^(1/p)`` falls in equal steps from ``t_start`` to ``t_end``.

    DPM-Solver's ``time_uniform`` is p = 1, its ``time_quadratic`` p = 2.

    Args:
        p: Exponent, > 0.
        t_start: Where sampling starts; None = the largest time of the model, but not above the one
            where sigma/alpha = 200, so that log-SNR is finite.
        t_end: Where sampling ends, >= 0; None = the smallest time of the model, but not below the
            one where sigma/alpha = 0.002.

    Raises:
        ValueError: p is not positive, or a time is negative.

    Source: Lu et al., DPM-Solver, 2022, arXiv 2206.00927, appendix D, and their code.
    """

    def __init__(
        self, *, p: float = 1.0, t_start: float | None = None, t_end: float | None = None
    ) -> None:
        if not p > 0.0:
            raise ValueError(f"p is {p}; expected a positive number")
        for name, value in (("t_start", t_start), ("t_end", t_end)):
            if value is not None and not value >= 0.0:
                raise ValueError(f"{name} is {value}; expected a time >= 0 or null")
        self.p = float(p)
        self.t_start = t_start
        self.t_end = t_end

    def times(self, model: Model, steps: int) -> Tensor:
        """``steps + 1`` times; only the last may lie below the model's range.

        Raises:
            ValueError: The start is not above the end.
        """
        low, high = model.time_range
        ends = torch.tensor([_LARGEST_NSR, _SMALLEST_NSR], dtype=torch.float64)
        top, bottom = model.path.schedule.time_at_nsr(ends).clamp(min=low, max=high).tolist()
        start = top if self.t_start is None else self.t_start
        end = bottom if self.t_end is None else self.t_end
        if not end < start:
            raise ValueError(f"{self!r} ends at t={end}, not below its start at t={start}")
        grid = self._between(start, end, steps)
        if end < low and float(grid[-2]) < low:
            upper = self._between(start, low, steps - 1) if steps > 1 else grid[:1]
            grid = torch.cat([upper, grid.new_full((1,), end)])
        return grid

    def _between(self, start: float, end: float, steps: int) -> Tensor:
        a, b = start ** (1.0 / self.p), end ** (1.0 / self.p)
        u = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
        grid = torch.pow(a + (b - a) * u, self.p)
        # The power may miss the ends by its rounding.
        grid[0], grid[-1] = start, end
        return grid
