"""What a path is made of: a schedule (alpha, sigma) and a source (the distribution of e).

Convention of the whole package: ``x_t = alpha(t) x + sigma(t) e`` with data ``x`` at ``t = 0`` and
the source ``e`` at the other end; on variance-exploding paths ``t`` is ``sigma`` itself. The
velocity is ``v(x_t, t) = d x_t / dt = alpha'(t) x + sigma'(t) e``; sampling integrates it from the
source end to the data end. The noise level is ``sigma / alpha`` (``nsr`` in names: the
noise-to-signal ratio). Everything that depends on time only is computed in float64.

Constructors raise ``ValueError`` for an argument outside the range that their docstring states.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.identity import Identified

__all__ = ["Coefficients", "Schedule", "Source", "as_float64"]

# Gauss's rule with three nodes on [0, 1].
_NODES, _WEIGHTS = (0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5), (5 / 18, 4 / 9, 5 / 18)
_SHORT_GAP, _SHORT_SHARE = 1e-5, 0.01


@dataclass(frozen=True)
class Coefficients:
    """A schedule at given times: alpha, sigma, their derivatives in t, and their Wronskian.

    Every field has the shape of ``t`` and is float64. ``wronskian = alpha sigma' - alpha' sigma``
    is positive and computed without cancellation.
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor
    wronskian: Tensor

    def rows(self) -> list["Coefficients"]:
        """One set per row of fields (K,) or (K, B)."""
        columns = (c.unbind() for c in vars(self).values())
        return [Coefficients(*row) for row in zip(*columns, strict=True)]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Coefficients":
        """The coefficients with ``change`` applied to every field."""
        return Coefficients(*map(change, vars(self).values()))


class Schedule(Identified, ABC):
    """The pair (alpha, sigma) as functions of time, with derivatives and inverse.

    A subclass implements :meth:`coefficients` and :meth:`time_at_nsr`. The noise level
    ``nsr = sigma / alpha`` grows strictly with t, from 0 at the data to ``nsr(t_max)``.

    Args:
        t_min: Smallest time of training and of network calls when sampling, >= 0; 0 = data.
        t_max: Largest time, > t_min; sampling starts there.

    Attributes:
        needs_positive_t_min: Whether derivatives or the log noise are infinite at t = 0.
        grid_floor: The last time above 0 on the natural grid; 0 = none.
        ends_in_source: Whether alpha is 0 at t = 1.

    Raises:
        ValueError: Not 0 <= t_min < t_max, or t_min is 0 where it must be positive.
    """

    needs_positive_t_min: bool = False
    grid_floor: float = 0.0
    ends_in_source: bool = False

    def __init__(self, t_min: float, t_max: float) -> None:
        if not 0.0 <= t_min < t_max or not math.isfinite(t_max):
            raise ValueError(f"need 0 <= t_min < t_max < inf, got t_min={t_min}, t_max={t_max}")
        self.t_min = float(t_min)
        self.t_max = float(t_max)
        if self.needs_positive_t_min and self.t_min == 0.0:
            raise ValueError(f"t_min is 0; {type(self).__name__} needs a positive t_min")

    @abstractmethod
    def coefficients(self, t: Tensor) -> Coefficients:
        """Alpha, sigma and their derivatives at float64 times ``t`` of any shape."""

    @abstractmethod
    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        """The time with ``sigma(t) / alpha(t) = nsr``; ``nsr`` in [0, inf], any shape, float64."""

    def mean_slopes(self, t: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """``(alpha(t) - alpha(r))/(t - r)`` and the same of sigma, r <= t; alpha', sigma' at r = t.

        At gaps up to 1e-5, where the difference would cancel, it is computed as the mean of the
        derivative by Gauss's rule. For sigma, whose derivative may be infinite at t = 0, this is
        limited to gaps up to t/100. Accurate to 1e-10, unless the derivative jumps within such a
        gap, as between the levels of a table.
        """
        a, b, gap = self.coefficients(t), self._at_end(r), t - r
        nodes, weights = (
            t.new_tensor(row).reshape(-1, *([1] * t.ndim)) for row in (_NODES, _WEIGHTS)
        )
        d = self.coefficients(t - gap * nodes)
        short = gap <= _SHORT_GAP
        shorter = short & (gap <= _SHORT_SHARE * t)
        safe = torch.where(gap > 0.0, gap, 1.0)
        return (
            torch.where(short, (weights * d.d_alpha).sum(0), (a.alpha - b.alpha) / safe),
            torch.where(shorter, (weights * d.d_sigma).sum(0), (a.sigma - b.sigma) / safe),
        )

    def _at_end(self, r: Tensor) -> Coefficients:
        """The coefficients at r; if t_min must be positive, constant (no gradient) at r = 0.

        sigma' may be infinite at r = 0, which automatic differentiation would turn into NaN even in
        derivatives with respect to other variables.
        """
        if not self.needs_positive_t_min:
            return self.coefficients(r)
        data = r <= 0.0
        ends = self.coefficients(torch.zeros_like(r))
        inside = self.coefficients(torch.where(data, 1.0, r))
        columns = zip(vars(ends).values(), vars(inside).values(), strict=True)
        return Coefficients(*(torch.where(data, end, own) for end, own in columns))

    def nsr(self, t: Tensor) -> Tensor:
        """Noise level ``sigma / alpha`` at ``t``; infinite where alpha is 0."""
        c = self.coefficients(as_float64(t))
        return c.sigma / c.alpha

    def log_snr(self, t: Tensor) -> Tensor:
        """Log signal-to-noise ratio ``log(alpha^2 / sigma^2)`` at ``t``."""
        return -2.0 * torch.log(self.nsr(t))

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        """The time with ``log(alpha^2 / sigma^2) = log_snr``: inverse of :meth:`log_snr`."""
        return self.time_at_nsr(torch.exp(-0.5 * as_float64(log_snr)))

    def unit_time(self, t: Tensor) -> Tensor:
        """Time as networks receive it, in [0, 1]: t itself on paths that run from 0 to 1."""
        return as_float64(t)

    def natural_grid(self, steps: int, t_start: float, t_end: float) -> Tensor:
        """``steps + 1`` times from ``t_start`` down to ``t_end``, spaced as is usual on this path.

        Uniform in t; where sigma' is infinite at the data, uniform down to :attr:`grid_floor` and
        from there in one step. The VE schedule has EDM's rho grid.
        """
        if t_end >= self.grid_floor:
            return torch.linspace(t_start, t_end, steps + 1, dtype=torch.float64)
        upper = torch.linspace(t_start, self.grid_floor, steps, dtype=torch.float64)
        return torch.cat([upper, upper.new_full((1,), t_end)])


class Source(Identified, ABC):
    """The distribution of e.

    Attributes:
        is_gaussian: Whether the formulas that assume Gaussian noise (score, churn, SDE samplers)
            hold for this source.
        has_density: Whether :meth:`log_density` is defined, which likelihoods need.
    """

    is_gaussian: bool
    has_density: bool = False

    @abstractmethod
    def sample(
        self, shape: Sequence[int], *, rng: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Independent draws of e for training, (B, ...), on the generator's device."""

    def prior(
        self, shape: Sequence[int], *, rng: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Draws from which sampling starts: distributed as in training unless overridden.

        The two differ only where authors trained on an approximation of what they sample from.
        """
        return self.sample(shape, rng=rng, dtype=dtype)

    def log_density(self, e: Tensor) -> Tensor:
        """Log density of :meth:`prior` at rows e, (B, N) float64; nats, (B,).

        Raises:
            ValueError: It has none, or none that is known.
        """
        raise ValueError(f"the density of {self!r} is not known")


def as_float64(t: Tensor) -> Tensor:
    """``t`` in float64, the dtype of everything that depends on time only."""
    return t if t.dtype == torch.float64 else t.to(torch.float64)
