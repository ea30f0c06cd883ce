"""Conversions between velocity, data and noise; nothing else converts them.

With ``W = alpha sigma' - alpha' sigma`` (the Wronskian, positive), every prediction is affine in
the state and the network's output F: ``prediction = a(t) x_t + b(t) F``. The coefficients are
written per kind of output and simplified by hand, so that none of them is a difference of nearly
equal numbers:

========  =========================  ==========================  ===============================
F is      data x                     noise e                     velocity v
========  =========================  ==========================  ===============================
velocity  (sigma' x_t - sigma F)/W   (alpha F - alpha' x_t)/W    F
data      F                          (x_t - alpha F)/sigma       (sigma'/sigma) x_t - (W/sigma) F
noise     (x_t - sigma F)/alpha      F                           (alpha'/alpha) x_t + (W/alpha) F
========  =========================  ==========================  ===============================
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from flowexp.paths.affine import Affine, Identity, leading, negated
from flowexp.paths.base import Coefficients

__all__ = [
    "Conversion",
    "FromData",
    "FromNegativeNoise",
    "FromNoise",
    "FromNoiseAndVariance",
    "FromPreconditioned",
    "FromReversedVelocity",
    "FromVelocity",
]


@dataclass(frozen=True)
class Conversion(ABC):
    """How the network's output F becomes each of the three linear predictions.

    Coefficients are computed on access: a sampler that needs the velocity does not pay for the
    other predictions.

    Args:
        c: The schedule at t.
    """

    c: Coefficients

    @property
    @abstractmethod
    def data(self) -> Affine:
        """F to data."""

    @property
    @abstractmethod
    def noise(self) -> Affine:
        """F to noise."""

    @property
    @abstractmethod
    def velocity(self) -> Affine:
        """F to velocity."""

    def at(self, c: Coefficients) -> "Conversion":
        """The same rule at other coefficients."""
        return replace(self, c=c)

    def rows(self) -> list["Conversion"]:
        """One conversion per row of coefficients (K,) or (K, B).

        Coefficients are computed for all times at once, on the first access: with a small network,
        tensor arithmetic on single numbers dominates the cost.
        """
        table = _Table(self)
        return [_Row(table, i) for i in range(len(self.c.alpha))]

    @property
    def _identity(self) -> Affine:
        return Identity(torch.zeros_like(self.c.alpha), torch.ones_like(self.c.alpha))


class _Table:
    """The affines of a conversion at many times, one per time."""

    def __init__(self, conversion: Conversion) -> None:
        self.conversion = conversion

    @cached_property
    def coefficients(self) -> list[Coefficients]:
        return self.conversion.c.rows()

    @cached_property
    def data(self) -> list[Affine]:
        return self.conversion.data.rows()

    @cached_property
    def noise(self) -> list[Affine]:
        return self.conversion.noise.rows()

    @cached_property
    def velocity(self) -> list[Affine]:
        return self.conversion.velocity.rows()


class _Row(Conversion):
    """A conversion at one time of a table."""

    table: _Table
    index: int

    def __init__(self, table: _Table, index: int) -> None:
        self.__dict__.update(table=table, index=index)

    @property
    def c(self) -> Coefficients:
        return self.table.coefficients[self.index]

    @property
    def data(self) -> Affine:
        return self.table.data[self.index]

    @property
    def noise(self) -> Affine:
        return self.table.noise[self.index]

    @property
    def velocity(self) -> Affine:
        return self.table.velocity[self.index]

    def at(self, c: Coefficients) -> Conversion:
        return self.table.conversion.at(c)


class FromVelocity(Conversion):
    """F is the velocity; finite at both ends of every path whose derivatives are."""

    @property
    def data(self) -> Affine:
        c = self.c
        return Affine(c.d_sigma / c.wronskian, -c.sigma / c.wronskian)

    @property
    def noise(self) -> Affine:
        c = self.c
        return Affine(-c.d_alpha / c.wronskian, c.alpha / c.wronskian)

    @property
    def velocity(self) -> Affine:
        return self._identity


class FromData(Conversion):
    """F is the data (a denoiser); noise and velocity are infinite where sigma is 0."""

    @property
    def data(self) -> Affine:
        return self._identity

    @property
    def noise(self) -> Affine:
        return Affine(1.0 / self.c.sigma, -self.c.alpha / self.c.sigma)

    @property
    def velocity(self) -> Affine:
        c = self.c
        return Affine(c.d_sigma / c.sigma, -c.wronskian / c.sigma)


class FromNoise(Conversion):
    """F is the noise; data and velocity are infinite where alpha is 0."""

    @property
    def data(self) -> Affine:
        return Affine(1.0 / self.c.alpha, -self.c.sigma / self.c.alpha)

    @property
    def noise(self) -> Affine:
        return self._identity

    @property
    def velocity(self) -> Affine:
        c = self.c
        return Affine(c.d_alpha / c.alpha, c.wronskian / c.alpha)


class _Modified(Conversion):
    """Another conversion, applied to F with its sign changed or to its first channels."""

    base: ClassVar[type[Conversion]]

    @staticmethod
    @abstractmethod
    def modified(affine: Affine) -> Affine:
        """The combination with the modified F."""

    @property
    def data(self) -> Affine:
        return self.modified(self.base(self.c).data)

    @property
    def noise(self) -> Affine:
        return self.modified(self.base(self.c).noise)

    @property
    def velocity(self) -> Affine:
        return self.modified(self.base(self.c).velocity)


class FromReversedVelocity(_Modified):
    """F is minus the velocity: the convention of codes whose time runs from noise to data."""

    base = FromVelocity
    modified = staticmethod(negated)


class FromNegativeNoise(_Modified):
    """F is the noise with its sign changed, which is sigma times the score of a Gaussian source."""

    base = FromNoise
    modified = staticmethod(negated)


class FromNoiseAndVariance(_Modified):
    """The first channels of F, as many as the state has, are the noise; the others are not used.

    Improved DDPM's networks predict a variance in the other half of their channels.
    """

    base = FromNoise
    modified = staticmethod(leading)


@dataclass(frozen=True)
class FromPreconditioned(Conversion):
    """F is EDM's unit-variance target, on any path.

    With ``q = alpha^2 sigma_data^2 + sigma^2`` (the variance of x_t). No coefficient cancels or
    diverges at either end.

    Args:
        c: The schedule at t.
        sigma_data: Standard deviation of the data.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1 (alpha = 1); the general path by
    ``D(x_t / alpha; sigma / alpha)``.
    """

    sigma_data: float

    @property
    def _variance(self) -> Tensor:
        return (self.c.alpha * self.sigma_data) ** 2 + self.c.sigma**2

    @property
    def data(self) -> Affine:
        """``(alpha sigma_data^2 / q) x_t + (sigma sigma_data / sqrt q) F``."""
        c, q = self.c, self._variance
        return Affine(c.alpha * self.sigma_data**2 / q, c.sigma * self.sigma_data * torch.rsqrt(q))

    @property
    def noise(self) -> Affine:
        """``(sigma / q) x_t - (alpha sigma_data / sqrt q) F``."""
        c, q = self.c, self._variance
        return Affine(c.sigma / q, -c.alpha * self.sigma_data * torch.rsqrt(q))

    @property
    def velocity(self) -> Affine:
        """``((alpha alpha' sigma_data^2 + sigma sigma') / q) x_t - (W sigma_data / sqrt q) F``."""
        c, q = self.c, self._variance
        drift = c.alpha * c.d_alpha * self.sigma_data**2 + c.sigma * c.d_sigma
        return Affine(drift / q, -c.wronskian * self.sigma_data * torch.rsqrt(q))
