"""Time grids that are shaped in t: natural, uniform, inset, quadratic, shifted, power, given."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.paths.time_shift import dimension_shift, shifted
from flowexp.samplers.base import TimeGrid

__all__ = [
    "DimensionShifted",
    "Given",
    "InsetUniform",
    "Natural",
    "Quadratic",
    "Shifted",
    "TokenShifted",
    "Uniform",
    "PowerGrid",
]

_LARGEST_NSR = 200.0
_SMALLEST_NSR = 0.002


class _Ending(TimeGrid):
    """A grid from the top of the model's range to ``t_end`` >= 0, the end of sampling."""

    above_zero = "set sampler.time_grid.t_end above 0"

    def __init__(self, *, t_end: float = 0.0) -> None:
        if not t_end >= 0.0:
            raise ValueError(f"t_end is {t_end}; expected a time >= 0")
        self.t_end = float(t_end)

    @property
    def ends_at_zero(self) -> bool:
        return self.t_end == 0.0

    def span(self, model: Model) -> tuple[float, float]:
        """Smallest time at which a step may begin, and where sampling starts."""
        low, high = model.time_range
        if self.t_end >= high:
            raise ValueError(f"t_end is {self.t_end}, not below the start of sampling at t={high}")
        return max(low, self.t_end), high


class Natural(_Ending):
    """The spacing the field uses on the model's path: uniform in t; EDM's rho = 7 grid on VE."""

    def times(self, model: Model, steps: int) -> Tensor:
        low, high = self.span(model)
        grid = model.path.schedule.natural_grid(steps, high, self.t_end)
        if float(grid[-2]) < low:
            grid = model.path.schedule.natural_grid(steps, high, low)
            grid[-1] = self.t_end
        return grid


class _Shaped(_Ending):
    """``t = t_end + (t_start - t_end) shape(u)`` for u uniform from 1 down to 0.

    When the last but one time would fall below the model's range, it is put on its lower end.
    """

    @abstractmethod
    def shape(self, u: Tensor) -> Tensor:
        """An increasing map of [0, 1] onto itself."""

    def times(self, model: Model, steps: int) -> Tensor:
        return self.spaced(*self.span(model), steps)

    def spaced(self, low: float, high: float, steps: int) -> Tensor:
        """``steps + 1`` times from ``high``; no step begins below ``low``."""
        u = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
        grid = self.t_end + (high - self.t_end) * self.shape(u)
        if float(grid[-2]) < low:
            u = torch.linspace(1.0, 0.0, steps, dtype=torch.float64)
            upper = low + (high - low) * self.shape(u)
            grid = torch.cat([upper, upper.new_full((1,), self.t_end)])
        return grid


class Uniform(_Shaped):
    """Equal steps in t."""

    def shape(self, u: Tensor) -> Tensor:
        return u


class InsetUniform(Uniform):
    """Equal steps in t over the whole path, except that the first time is moved inside it.

    On the linear path ``1 - margin, 1 - 1/N, 1 - 2/N, .., 0``. Where the model's range ends before
    ``t_max - margin``, the equal steps begin ``margin`` above its end.

    Args:
        margin: Distance of the first time from the end of the path, >= 0; less than one step.

    Source: Lee et al., RF++, 2024, arXiv 2405.20320, and their generate.py.
    """

    def __init__(self, *, margin: float = 1e-5, t_end: float = 0.0) -> None:
        super().__init__(t_end=t_end)
        if not margin >= 0.0:
            raise ValueError(f"margin is {margin}; expected a number >= 0")
        self.margin = float(margin)

    def times(self, model: Model, steps: int) -> Tensor:
        low, high = self.span(model)
        top = min(model.path.schedule.t_max, high + self.margin)
        grid = self.spaced(low, top, steps)
        grid[0] = top - self.margin
        return grid

    def identity(self) -> str:
        return f"InsetUniform(margin={self.margin}, t_end={self.t_end})"


class Quadratic(_Shaped):
    """``t = t_start u^2``: finer steps near the data.

    Source: Song et al., DDIM, 2020, arXiv 2010.02502, appendix D.2 (their CIFAR-10 grid).
    """

    def shape(self, u: Tensor) -> Tensor:
        return u**2


class Shifted(_Shaped):
    """``t = s u / (1 + (s - 1) u)``: finer steps near the source for s > 1.

    On the linear path this multiplies the noise-to-signal ratio by s.

    Args:
        shift: s, > 0; 1 is the uniform grid (3 as published for 1024 x 1024 images).

    Source: Esser et al., Stable Diffusion 3, 2024, arXiv 2403.03206, eq. 23.
    """

    def __init__(self, *, shift: float = 3.0, t_end: float = 0.0) -> None:
        super().__init__(t_end=t_end)
        if not shift > 0.0:
            raise ValueError(f"shift is {shift}; expected a positive number")
        self.shift = float(shift)

    def shape(self, u: Tensor) -> Tensor:
        return shifted(u, self.shift)

    def identity(self) -> str:
        return f"{type(self).__name__}(shift={self.shift}, t_end={self.t_end})"


class DimensionShifted(Shifted):
    """:class:`Shifted` by ``s = sqrt(n / base)``, n = channels * resolution^2.

    The law of training times with the same s is ``timestep=dimension_shifted``.

    Args:
        channels: Of a sample, as the network gets it.
        resolution: Its height and width.
        base: How many numbers a sample has that needs no shift, > 0.

    Source: see :func:`flowexp.paths.time_shift.dimension_shift`.
    """

    def __init__(
        self, *, channels: int, resolution: int, base: float = 4096.0, t_end: float = 0.0
    ) -> None:
        shift = dimension_shift(channels=channels, resolution=resolution, base=base)
        super().__init__(shift=shift, t_end=t_end)


class TokenShifted(_Shaped):
    """:class:`Shifted` with a shift that grows with the size of the image: ``s = exp(mu(L))``.

    ``mu`` is linear in the number of tokens L: ``mu_low`` at ``tokens_low``, ``mu_high`` at
    ``tokens_high``, and beyond them too.

    Args:
        tokens: L, what the network's attention runs over, >= 1.
        tokens_low, mu_low: A number of tokens, and mu there.
        tokens_high, mu_high: A larger number of tokens, and mu there.

    Source: Black Forest Labs' FLUX.1, sampling.py (get_schedule); RF-Solver, 2024, arXiv
    2411.04746, samples and inverts on it.
    """

    def __init__(
        self,
        *,
        tokens: int,
        tokens_low: int = 256,
        mu_low: float = 0.5,
        tokens_high: int = 4096,
        mu_high: float = 1.15,
        t_end: float = 0.0,
    ) -> None:
        super().__init__(t_end=t_end)
        if tokens < 1 or not 0 < tokens_low < tokens_high:
            raise ValueError(
                f"need tokens >= 1 and 0 < tokens_low < tokens_high, got tokens={tokens}, "
                f"tokens_low={tokens_low}, tokens_high={tokens_high}"
            )
        self.tokens = int(tokens)
        slope = (mu_high - mu_low) / (tokens_high - tokens_low)
        self.mu = mu_low + slope * (tokens - tokens_low)
        self.shifted = Shifted(shift=math.exp(self.mu))

    def shape(self, u: Tensor) -> Tensor:
        return self.shifted.shape(u)

    def identity(self) -> str:
        return f"TokenShifted(tokens={self.tokens}, mu={self.mu:g}, t_end={self.t_end})"


class Given(TimeGrid):
    """A list of times; its length fixes the number of steps.

    Args:
        values: Two or more times, strictly decreasing, from within the model's range to the end of
            sampling.
    """

    above_zero = "end sampler.time_grid.values above 0, with one time less"

    def __init__(self, *, values: Sequence[float]) -> None:
        self.values = [float(t) for t in values]
        if len(self.values) < 2 or any(b >= a for a, b in pairwise(self.values)):
            raise ValueError(
                f"values is {self.values}; expected two or more times, each smaller than the "
                f"one before"
            )

    @property
    def ends_at_zero(self) -> bool:
        return self.values[-1] == 0.0

    def times(self, model: Model, steps: int) -> Tensor:
        if len(self.values) != steps + 1:
            raise ValueError(
                f"sampler.steps is {steps}, but sampler.time_grid.values has {len(self.values)} "
                f"times, which make {len(self.values) - 1} steps"
            )
        return torch.tensor(self.values, dtype=torch.float64)


class PowerGrid(TimeGrid):
    """``t^(1/p)`` falls in equal steps from ``t_start`` to ``t_end``.

    DPM-Solver's ``time_uniform`` is p = 1, its ``time_quadratic`` p = 2.

    Args:
        p: Exponent, > 0.
        t_start: Start of sampling; None = the largest time of the model, but not above the one
            where sigma/alpha = 200, so that log-SNR is finite.
        t_end: End of sampling, >= 0; None = the smallest time of the model, but not below the
            one where sigma/alpha = 0.002.

    Source: Lu et al., DPM-Solver, 2022, arXiv 2206.00927, appendix D, and their code.
    """

    above_zero = "set sampler.time_grid.t_end=null"

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

    @property
    def ends_at_zero(self) -> bool:
        return self.t_end == 0.0

    def times(self, model: Model, steps: int) -> Tensor:
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
