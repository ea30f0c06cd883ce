"""Another law with its times moved towards the source or the data."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.paths.base import as_float64
from flowexp.paths.time_shift import Times, dimension_shift, shifted
from flowexp.requirements import Parts, Unmet, all_of
from flowexp.timesteps.base import TimestepDistribution, needs_of

__all__ = ["DimensionShifted", "Shifted"]


class Shifted(TimestepDistribution):
    """``t' = s t / (1 + (s - 1) t)`` for t from another law; a noise level is multiplied by s.

    On the linear path the two are the same: ln(sigma / alpha) grows by ln s. On other paths with
    time in [0, 1], t is mapped all the same; laws of sigma / alpha grow by ln s on every path.

    Args:
        law: The law before the shift.
        shift: s, > 0; 1 leaves the law as it is, more favours the source end.

    Source: Esser et al., Stable Diffusion 3, 2024, arXiv 2403.03206, eq. 23 (3 for 1024 x 1024
    images), in training and sampling.
    """

    def __init__(self, law: TimestepDistribution, *, shift: float = 3.0) -> None:
        if not 0.0 < shift < math.inf:
            raise ValueError(f"shift is {shift}; expected a finite positive number")
        self.law = law
        self.shift = float(shift)
        self.in_nsr = law.in_nsr
        self.drawn_end = None if law.drawn_end is None else f"law.{law.drawn_end}"

    @property
    def support(self) -> tuple[float, float]:
        low, high = self.law.support
        return self._mapped(low, self.shift), self._mapped(high, self.shift)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """What the law needs, and times that the map is meant for."""
        yield from all_of(needs_of("law", self.law, parts), self._unit_interval())

    def _unit_interval(self) -> Iterator[Unmet]:
        low, high = self.law.support
        if not self.law.in_nsr and high > 1.0:
            name, law = type(self).__name__, type(self.law).__name__
            problem = f"{name} maps times in [0, 1], but {law} draws t in ({low:g}, {high:g})."
            yield Unmet(".law", problem, "Use timestep@timestep.law=lognormal.")

    def quantile(self, u: Tensor) -> Tensor:
        return self._mapped(self.law.quantile(u), self.shift)

    def cdf(self, value: Tensor) -> Tensor:
        return self.law.cdf(self._before(value))

    def pdf(self, value: Tensor) -> Tensor:
        """The law's density at the value before the shift, times the derivative of that."""
        value = as_float64(value)
        before = self._before(value)
        # d/dt' of the inverse map is (1 + (s - 1) t)^2 / s
        stretch = 1.0 if self.in_nsr else (1.0 + (self.shift - 1.0) * before) ** 2
        density = self.law.pdf(before) * stretch / self.shift
        low, high = self.support
        return torch.where((value >= low) & (value <= high), density, 0.0)

    def _before(self, value: Tensor) -> Tensor:
        value = as_float64(value)
        inside = value.clamp(min=0.0) if self.in_nsr else value.clamp(0.0, 1.0)
        return self._mapped(inside, 1.0 / self.shift)

    def _mapped(self, value: Times, shift: float) -> Times:
        return shift * value if self.in_nsr else shifted(value, shift)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.law!r}, shift={self.shift:g})"


class DimensionShifted(Shifted):
    """:class:`Shifted` by ``s = sqrt(n / base)``, n = channels * resolution^2.

    ``sampler/time_grid=dimension_shifted`` shifts the times of sampling by the same s.

    Args:
        law: The law before the shift.
        channels: Of a sample, as the network gets it.
        resolution: Its height and width.
        base: How many numbers a sample has that needs no shift, > 0.

    Source: see :func:`flowexp.paths.time_shift.dimension_shift`; there the law is the logit-normal
    one with 0 and 1.
    """

    def __init__(
        self,
        law: TimestepDistribution,
        *,
        channels: int,
        resolution: int,
        base: float = 4096.0,
    ) -> None:
        shift = dimension_shift(channels=channels, resolution=resolution, base=base)
        super().__init__(law, shift=shift)
