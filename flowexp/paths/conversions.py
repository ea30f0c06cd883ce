"""The one place where velocity, data, noise and score become each other.

With ``W = alpha sigma' - alpha' sigma`` (the Wronskian, positive), every prediction is affine in
the state and the network's output F: ``prediction = a(t) x_t + b(t) F``. The coefficients are
written per kind of output and simplified on paper, so that none of them is a difference of nearly
equal numbers:

========  =========================  ==========================  ===============================
F is      data x                     noise e                     velocity v
========  =========================  ==========================  ===============================
velocity  (sigma' x_t - sigma F)/W   (alpha F - alpha' x_t)/W    F
data      F                          (x_t - alpha F)/sigma       (sigma'/sigma) x_t - (W/sigma) F
noise     (x_t - sigma F)/alpha      F                           (alpha'/alpha) x_t + (W/alpha) F
========  =========================  ==========================  ===============================

The score ``-e / sigma`` is derived from the noise, and only for a Gaussian source.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.paths.base import Coefficients
from flowexp.paths.path import Path

__all__ = [
    "Affine",
    "Conversion",
    "FromData",
    "FromNegativeNoise",
    "FromNoise",
    "FromNoiseAndVariance",
    "FromPreconditioned",
    "FromReversedVelocity",
    "FromVelocity",
    "Prediction",
]


@dataclass(frozen=True)
class Affine:
    """``state * x_t + output * F``.

    Attributes:
        state: Coefficient of x_t: float64 of the shape of t, or a number for one time.
        output: Coefficient of F, likewise.
    """

    state: Tensor | float
    output: Tensor | float

    def __call__(self, x_t: Tensor, output: Tensor) -> Tensor:
        """The combination, in the dtype of ``x_t``."""
        if isinstance(self.state, float) and isinstance(self.output, float):
            return torch.add(x_t * self.state, output, alpha=self.output)
        state, factor = torch.as_tensor(self.state), torch.as_tensor(self.output)
        return expand_as(state, x_t) * x_t + expand_as(factor, x_t) * output

    def rows(self) -> list[Self]:
        """One affine per row of coefficients (K,) or (K, B): of numbers, or of tensors (B,)."""
        states, outputs = torch.as_tensor(self.state), torch.as_tensor(self.output)
        pairs = zip(_listed(states), _listed(outputs), strict=True)
        return [replace(self, state=a, output=b) for a, b in pairs]


def _listed(values: Tensor) -> Sequence[Tensor | float]:
    """The rows of a tensor; numbers where they are scalars, on which tensor arithmetic is slow."""
    if values.ndim > 1:
        return values.unbind()
    numbers: list[Tensor | float] = values.tolist()
    return numbers


class _Identity(Affine):
    """F itself; skips the arithmetic of a zero and a one."""

    def __call__(self, x_t: Tensor, output: Tensor) -> Tensor:
        return output


class _LeadingChannels(Affine):
    """Of F only the first channels, as many as the state has."""

    def __call__(self, x_t: Tensor, output: Tensor) -> Tensor:
        return super().__call__(x_t, output[:, : x_t.shape[1]])


def _negated(affine: Affine) -> Affine:
    """The same of ``-F``."""
    return Affine(affine.state, -affine.output)


def _leading(affine: Affine) -> Affine:
    """The same of the first channels of F."""
    return _LeadingChannels(affine.state, affine.output)


@dataclass(frozen=True)
class Conversion(ABC):
    """How the network's output F becomes each of the three linear predictions.

    The coefficients of a prediction are computed when it is asked for: a sampler that needs the
    velocity does not pay for the others.

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

        Their coefficients are computed for all times at once, when the first of them is asked:
        beside a small network, tensor arithmetic on single numbers is what costs.
        """
        table = _Table(self)
        return [_Row(c, table, i) for i, c in enumerate(self.c.rows())]

    @property
    def _identity(self) -> Affine:
        return _Identity(torch.zeros_like(self.c.alpha), torch.ones_like(self.c.alpha))


class _Table:
    """The affines of a conversion at many times, one per time."""

    def __init__(self, conversion: Conversion) -> None:
        self.conversion = conversion

    @cached_property
    def data(self) -> list[Affine]:
        return self.conversion.data.rows()

    @cached_property
    def noise(self) -> list[Affine]:
        return self.conversion.noise.rows()

    @cached_property
    def velocity(self) -> list[Affine]:
        return self.conversion.velocity.rows()


@dataclass(frozen=True)
class _Row(Conversion):
    """A conversion at one time of a table."""

    table: _Table
    index: int

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
        """``(sigma' x_t - sigma F) / W``."""
        c = self.c
        return Affine(c.d_sigma / c.wronskian, -c.sigma / c.wronskian)

    @property
    def noise(self) -> Affine:
        """``(alpha F - alpha' x_t) / W``."""
        c = self.c
        return Affine(-c.d_alpha / c.wronskian, c.alpha / c.wronskian)

    @property
    def velocity(self) -> Affine:
        """F."""
        return self._identity


class FromReversedVelocity(FromVelocity):
    """F is minus the velocity: the convention of codes whose time runs from noise to data."""

    @property
    def data(self) -> Affine:
        """``(sigma' x_t + sigma F) / W``."""
        return _negated(super().data)

    @property
    def noise(self) -> Affine:
        """``-(alpha F + alpha' x_t) / W``."""
        return _negated(super().noise)

    @property
    def velocity(self) -> Affine:
        """-F."""
        return Affine(torch.zeros_like(self.c.alpha), -torch.ones_like(self.c.alpha))


class FromData(Conversion):
    """F is the data (a denoiser); noise and velocity are infinite where sigma is 0."""

    @property
    def data(self) -> Affine:
        """F."""
        return self._identity

    @property
    def noise(self) -> Affine:
        """``(x_t - alpha F) / sigma``."""
        return Affine(1.0 / self.c.sigma, -self.c.alpha / self.c.sigma)

    @property
    def velocity(self) -> Affine:
        """``(sigma' / sigma) x_t - (W / sigma) F``."""
        c = self.c
        return Affine(c.d_sigma / c.sigma, -c.wronskian / c.sigma)


class FromNoise(Conversion):
    """F is the noise; data and velocity are infinite where alpha is 0."""

    @property
    def data(self) -> Affine:
        """``(x_t - sigma F) / alpha``."""
        return Affine(1.0 / self.c.alpha, -self.c.sigma / self.c.alpha)

    @property
    def noise(self) -> Affine:
        """F."""
        return self._identity

    @property
    def velocity(self) -> Affine:
        """``(alpha' / alpha) x_t + (W / alpha) F``."""
        c = self.c
        return Affine(c.d_alpha / c.alpha, c.wronskian / c.alpha)


class FromNegativeNoise(FromNoise):
    """F is the noise with its sign changed, which is sigma times the score of a Gaussian source."""

    @property
    def data(self) -> Affine:
        """``(x_t + sigma F) / alpha``."""
        return _negated(super().data)

    @property
    def noise(self) -> Affine:
        """``-F``."""
        return _negated(super().noise)

    @property
    def velocity(self) -> Affine:
        """``(alpha' / alpha) x_t - (W / alpha) F``."""
        return _negated(super().velocity)


class FromNoiseAndVariance(FromNoise):
    """The first channels of F, as many as the state has, are the noise; the others are not used.

    Improved DDPM's networks predict a variance in the other half of their channels.
    """

    @property
    def data(self) -> Affine:
        """``(x_t - sigma F) / alpha``."""
        return _leading(super().data)

    @property
    def noise(self) -> Affine:
        """The first channels of F."""
        return _leading(super().noise)

    @property
    def velocity(self) -> Affine:
        """``(alpha' / alpha) x_t + (W / alpha) F``."""
        return _leading(super().velocity)


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


@dataclass(frozen=True)
class Prediction:
    """What a model says about x_t, in every linear form, from one network call.

    Each property is computed when it is asked for, in the dtype of ``x_t``.

    Args:
        path: The path that x_t lies on.
        x_t: State, (B, ...).
        output: The network's output F, (B, ...).
        coefficients: The schedule at t.
        conversion: How F becomes data, noise and velocity.
    """

    path: Path
    x_t: Tensor
    output: Tensor
    coefficients: Coefficients
    conversion: Conversion

    @classmethod
    def of_velocity(cls, path: Path, x_t: Tensor, t: Tensor, velocity: Tensor) -> Self:
        """The prediction whose velocity is given; t is () or (B,)."""
        c = path.schedule.coefficients(t.to(torch.float64))
        return cls(path, x_t, velocity, c, FromVelocity(c))

    @classmethod
    def of_data(cls, path: Path, x_t: Tensor, t: Tensor, data: Tensor) -> Self:
        """The prediction whose data (denoised x_t) is given; t is () or (B,)."""
        c = path.schedule.coefficients(t.to(torch.float64))
        return cls(path, x_t, data, c, FromData(c))

    @classmethod
    def of_noise(cls, path: Path, x_t: Tensor, t: Tensor, noise: Tensor) -> Self:
        """The prediction whose noise is given; t is () or (B,)."""
        c = path.schedule.coefficients(t.to(torch.float64))
        return cls(path, x_t, noise, c, FromNoise(c))

    @property
    def data(self) -> Tensor:
        """Denoised state: E[x | x_t] for an ideal model."""
        return self.conversion.data(self.x_t, self.output)

    @property
    def noise(self) -> Tensor:
        """E[e | x_t] for an ideal model."""
        return self.conversion.noise(self.x_t, self.output)

    @property
    def velocity(self) -> Tensor:
        """dx_t/dt = E[alpha' x + sigma' e | x_t] for an ideal model."""
        return self.conversion.velocity(self.x_t, self.output)

    @property
    def score(self) -> Tensor:
        """``grad log p_t(x_t) = -e / sigma``.

        Raises:
            ValueError: The source is not Gaussian, so that this formula is not the score.
        """
        if not self.path.source.is_gaussian:
            raise ValueError(
                f"the score -e/sigma assumes Gaussian noise, but the path's source is "
                f"{self.path.source!r}; use velocity, data or noise, or path.D=inf"
            )
        return -self.noise / expand_as(self.coefficients.sigma, self.noise)
