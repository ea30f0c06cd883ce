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

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.paths.base import Coefficients
from flowexp.paths.path import Path

__all__ = [
    "Affine",
    "Conversion",
    "Prediction",
    "from_data",
    "from_noise",
    "from_preconditioned",
    "from_velocity",
]


@dataclass(frozen=True)
class Affine:
    """``state * x_t + output * F``; coefficients of the shape of t, float64."""

    state: Tensor
    output: Tensor

    def __call__(self, x_t: Tensor, output: Tensor) -> Tensor:
        """The combination, in the dtype of ``x_t``."""
        return expand_as(self.state, x_t) * x_t + expand_as(self.output, x_t) * output


@dataclass(frozen=True)
class Conversion:
    """How the network's output F becomes each of the three linear predictions."""

    data: Affine
    noise: Affine
    velocity: Affine


def from_velocity(c: Coefficients) -> Conversion:
    """F is the velocity; finite at both ends of every path whose derivatives are."""
    return Conversion(
        data=Affine(c.d_sigma / c.wronskian, -c.sigma / c.wronskian),
        noise=Affine(-c.d_alpha / c.wronskian, c.alpha / c.wronskian),
        velocity=_identity(c),
    )


def from_data(c: Coefficients) -> Conversion:
    """F is the data (a denoiser); noise and velocity are infinite where sigma is 0."""
    return Conversion(
        data=_identity(c),
        noise=Affine(1.0 / c.sigma, -c.alpha / c.sigma),
        velocity=Affine(c.d_sigma / c.sigma, -c.wronskian / c.sigma),
    )


def from_noise(c: Coefficients) -> Conversion:
    """F is the noise; data and velocity are infinite where alpha is 0."""
    return Conversion(
        data=Affine(1.0 / c.alpha, -c.sigma / c.alpha),
        noise=_identity(c),
        velocity=Affine(c.d_alpha / c.alpha, c.wronskian / c.alpha),
    )


def from_preconditioned(c: Coefficients, *, sigma_data: float) -> Conversion:
    """F is EDM's unit-variance target, on any path.

    With ``q = alpha^2 sigma_data^2 + sigma^2`` (the variance of x_t):
    ``x = (alpha sigma_data^2 / q) x_t + (sigma sigma_data / sqrt q) F``,
    ``e = (sigma / q) x_t - (alpha sigma_data / sqrt q) F``,
    ``v = ((alpha alpha' sigma_data^2 + sigma sigma') / q) x_t - (W sigma_data / sqrt q) F``.
    No coefficient cancels or diverges at either end.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1 (alpha = 1); the general path by
    ``D(x_t / alpha; sigma / alpha)``.
    """
    s2 = sigma_data**2
    q = c.alpha**2 * s2 + c.sigma**2
    root = torch.sqrt(q)
    drift = c.alpha * c.d_alpha * s2 + c.sigma * c.d_sigma
    return Conversion(
        data=Affine(c.alpha * s2 / q, c.sigma * sigma_data / root),
        noise=Affine(c.sigma / q, -c.alpha * sigma_data / root),
        velocity=Affine(drift / q, -c.wronskian * sigma_data / root),
    )


def _identity(c: Coefficients) -> Affine:
    return Affine(torch.zeros_like(c.alpha), torch.ones_like(c.alpha))


@dataclass(frozen=True)
class Prediction:
    """What a model says about x_t, in every linear form, from one network call.

    Each property is computed when it is first asked for, in the dtype of ``x_t``.

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
    def of_velocity(cls, path: Path, x_t: Tensor, t: Tensor, velocity: Tensor) -> "Prediction":
        """The prediction whose velocity is given; t is () or (B,)."""
        c = path.schedule.coefficients(t.to(torch.float64))
        return cls(path, x_t, velocity, c, from_velocity(c))

    @classmethod
    def of_data(cls, path: Path, x_t: Tensor, t: Tensor, data: Tensor) -> "Prediction":
        """The prediction whose data (denoised x_t) is given; t is () or (B,)."""
        c = path.schedule.coefficients(t.to(torch.float64))
        return cls(path, x_t, data, c, from_data(c))

    @classmethod
    def of_noise(cls, path: Path, x_t: Tensor, t: Tensor, noise: Tensor) -> "Prediction":
        """The prediction whose noise is given; t is () or (B,)."""
        c = path.schedule.coefficients(t.to(torch.float64))
        return cls(path, x_t, noise, c, from_noise(c))

    @cached_property
    def data(self) -> Tensor:
        """Denoised state: E[x | x_t] for an ideal model."""
        return self.conversion.data(self.x_t, self.output)

    @cached_property
    def noise(self) -> Tensor:
        """E[e | x_t] for an ideal model."""
        return self.conversion.noise(self.x_t, self.output)

    @cached_property
    def velocity(self) -> Tensor:
        """dx_t/dt = E[alpha' x + sigma' e | x_t] for an ideal model."""
        return self.conversion.velocity(self.x_t, self.output)

    @cached_property
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
