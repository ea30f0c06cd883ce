"""Predictions in every linear form: velocity, data and noise; nothing else converts them.

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

The score, of a Gaussian source, is the noise divided by -sigma.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from flowexp.broadcast import expand_as, factors
from flowexp.paths.base import Coefficients, as_float64
from flowexp.paths.path import Path

__all__ = [
    "Affine",
    "Conversion",
    "FromData",
    "FromNoise",
    "FromPreconditioned",
    "FromScore",
    "FromVelocity",
    "Identity",
    "Prediction",
]


@dataclass(frozen=True)
class Affine:
    """``state * x_t + output * F``; coefficients are float64 of the shape of t, or two numbers."""

    state: Tensor | float
    output: Tensor | float

    def __call__(self, x_t: Tensor, output: Tensor) -> Tensor:
        """The combination, in the dtype of ``x_t``."""
        if isinstance(self.state, float) and isinstance(self.output, float):
            return torch.add(x_t * self.state, output, alpha=self.output)
        state, factor = torch.as_tensor(self.state), torch.as_tensor(self.output)
        return torch.addcmul(expand_as(state, x_t) * x_t, expand_as(factor, x_t), output)

    def combined(self, other: "Affine", own: Tensor | float, others: Tensor | float) -> "Affine":
        """``own self + others other``, in one pass over the state."""
        return Affine(
            own * self.state + others * other.state, own * self.output + others * other.output
        )

    def rows(self) -> list[Self]:
        """One affine per row of coefficients (K,) or (K, B): of numbers, or of tensors (B,)."""
        states, outputs = torch.as_tensor(self.state), torch.as_tensor(self.output)
        pairs = zip(factors(states), factors(outputs), strict=True)
        return [type(self)(a, b) for a, b in pairs]


class Identity(Affine):
    """F itself; skips the arithmetic of a zero and a one."""

    def __call__(self, x_t: Tensor, output: Tensor) -> Tensor:
        return output


@dataclass(frozen=True)
class Conversion(ABC):
    """How the network's output F becomes each of the three linear predictions, at schedule ``c``.

    Coefficients are computed on access: a sampler that needs the velocity does not pay for the
    other predictions.
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

    def read(self, output: Tensor, *, like: Tensor) -> Tensor:
        """F, of the shape of the state ``like``, from what the network gives."""
        return output

    def score(self, output: Tensor, *, like: Tensor) -> Tensor | None:
        """A score that the network predicts itself, or None: it follows from the noise."""
        return None

    def at(self, c: Coefficients) -> "Conversion":
        """The same rule at other coefficients."""
        return replace(self, c=c)

    def rows(self) -> list["Conversion"]:
        """One conversion per row of coefficients (K,) or (K, B).

        Coefficients are computed for all times at once, on the first access: with a small network,
        tensor arithmetic on single numbers dominates the cost.
        """
        return [_Row(self, i) for i in range(len(self.c.alpha))]

    @cached_property
    def _c_rows(self) -> list[Coefficients]:
        return self.c.rows()

    @cached_property
    def _data_rows(self) -> list[Affine]:
        return self.data.rows()

    @cached_property
    def _noise_rows(self) -> list[Affine]:
        return self.noise.rows()

    @cached_property
    def _velocity_rows(self) -> list[Affine]:
        return self.velocity.rows()

    @property
    def _identity(self) -> Affine:
        return Identity(torch.zeros_like(self.c.alpha), torch.ones_like(self.c.alpha))


class _Row(Conversion):
    """The conversion ``table`` at one of its times."""

    table: Conversion
    index: int

    def __init__(self, table: Conversion, index: int) -> None:
        self.__dict__.update(table=table, index=index)

    @property
    def c(self) -> Coefficients:
        return self.table._c_rows[self.index]

    @property
    def data(self) -> Affine:
        return self.table._data_rows[self.index]

    @property
    def noise(self) -> Affine:
        return self.table._noise_rows[self.index]

    @property
    def velocity(self) -> Affine:
        return self.table._velocity_rows[self.index]

    def read(self, output: Tensor, *, like: Tensor) -> Tensor:
        return self.at(self.c).read(output, like=like)

    def score(self, output: Tensor, *, like: Tensor) -> Tensor | None:
        return self.at(self.c).score(output, like=like)

    def at(self, c: Coefficients) -> Conversion:
        return self.table.at(c)


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


class FromScore(Conversion):
    """F is the score ``-e / sigma``; data and velocity are infinite where alpha is 0."""

    @property
    def data(self) -> Affine:
        return Affine(1.0 / self.c.alpha, self.c.sigma**2 / self.c.alpha)

    @property
    def noise(self) -> Affine:
        return Affine(torch.zeros_like(self.c.sigma), -self.c.sigma)

    @property
    def velocity(self) -> Affine:
        c = self.c
        return Affine(c.d_alpha / c.alpha, -c.wronskian * c.sigma / c.alpha)


@dataclass(frozen=True)
class FromPreconditioned(Conversion):
    """F is EDM's unit-variance target, on any path.

    With ``q = alpha^2 sigma_data^2 + sigma^2`` (the variance of x_t for data of standard deviation
    sigma_data). No coefficient cancels or diverges at either end.

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
    """A model's prediction at x_t on a path, in every linear form, from one network output F.

    State and output are (B, ...). Each form is computed on access, in the dtype of ``x_t``.
    """

    path: Path
    x_t: Tensor
    output: Tensor
    conversion: Conversion

    @classmethod
    def of_velocity(cls, path: Path, x_t: Tensor, t: Tensor, velocity: Tensor) -> Self:
        """The prediction of a given velocity at times t, () or (B,)."""
        return cls(path, x_t, velocity, FromVelocity(path.schedule.coefficients(as_float64(t))))

    @classmethod
    def of_data(cls, path: Path, x_t: Tensor, t: Tensor, data: Tensor) -> Self:
        """The prediction of given data (denoised x_t)."""
        return cls(path, x_t, data, FromData(path.schedule.coefficients(as_float64(t))))

    @classmethod
    def of_noise(cls, path: Path, x_t: Tensor, t: Tensor, noise: Tensor) -> Self:
        """The prediction of given noise."""
        return cls(path, x_t, noise, FromNoise(path.schedule.coefficients(as_float64(t))))

    @property
    def coefficients(self) -> Coefficients:
        """The schedule at t."""
        return self.conversion.c

    @property
    def data(self) -> Tensor:
        """Denoised state: E[x | x_t] for an ideal model."""
        return self._in_form(self.conversion.data)

    @property
    def noise(self) -> Tensor:
        """E[e | x_t] for an ideal model."""
        return self._in_form(self.conversion.noise)

    @property
    def velocity(self) -> Tensor:
        """dx_t/dt = E[alpha' x + sigma' e | x_t] for an ideal model."""
        return self._in_form(self.conversion.velocity)

    @property
    def score(self) -> Tensor:
        """``grad log p_t(x_t)``: the network's own, or ``-e / sigma``.

        A ``ValueError`` if the network has none and the source is not Gaussian.
        """
        own = self.conversion.score(self.output, like=self.x_t)
        if own is not None:
            return own
        if not self.path.source.is_gaussian:
            raise ValueError(
                f"the score -e/sigma assumes Gaussian noise, but the path's source is "
                f"{self.path.source!r}; use velocity, data or noise, or path.D=inf"
            )
        return -self.noise / expand_as(self.coefficients.sigma, self.noise)

    def combined(self, *, noise: float, velocity: float) -> Tensor:
        """``noise e + velocity v``, in one pass over the state."""
        affine = self.conversion.noise.combined(self.conversion.velocity, noise, velocity)
        return self._in_form(affine)

    def towards_data(self, *, w: float, pull: float) -> Tensor:
        """``-v + w score`` with ``pull = w / sigma``; in one pass if the score is -e/sigma."""
        own = self.conversion.score(self.output, like=self.x_t)
        if own is None:
            return self.combined(noise=-pull, velocity=-1.0)
        return torch.sub(w * own, self.velocity)

    def _in_form(self, affine: Affine) -> Tensor:
        return affine(self.x_t, self.conversion.read(self.output, like=self.x_t))
