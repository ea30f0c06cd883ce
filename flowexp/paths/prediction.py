"""A model's prediction at a state, in every linear form."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.paths.base import Coefficients, as_float64
from flowexp.paths.conversions import Conversion, FromData, FromNoise, FromVelocity
from flowexp.paths.path import Path

__all__ = ["Prediction"]


@dataclass(frozen=True)
class Prediction:
    """A model's prediction at x_t, in every linear form, from one network call.

    Each property is computed on access, in the dtype of ``x_t``.

    Args:
        path: The path that x_t lies on.
        x_t: State, (B, ...).
        output: The network's output F, (B, ...).
        conversion: How F becomes data, noise and velocity.
    """

    path: Path
    x_t: Tensor
    output: Tensor
    conversion: Conversion

    @classmethod
    def of_velocity(cls, path: Path, x_t: Tensor, t: Tensor, velocity: Tensor) -> Self:
        """The prediction whose velocity is given; t is () or (B,)."""
        return cls(path, x_t, velocity, FromVelocity(path.schedule.coefficients(as_float64(t))))

    @classmethod
    def of_data(cls, path: Path, x_t: Tensor, t: Tensor, data: Tensor) -> Self:
        """The prediction whose data (denoised x_t) is given; t is () or (B,)."""
        return cls(path, x_t, data, FromData(path.schedule.coefficients(as_float64(t))))

    @classmethod
    def of_noise(cls, path: Path, x_t: Tensor, t: Tensor, noise: Tensor) -> Self:
        """The prediction whose noise is given; t is () or (B,)."""
        return cls(path, x_t, noise, FromNoise(path.schedule.coefficients(as_float64(t))))

    @property
    def coefficients(self) -> Coefficients:
        """The schedule at t."""
        return self.conversion.c

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
            ValueError: The source is not Gaussian, so this formula is not the score.
        """
        if not self.path.source.is_gaussian:
            raise ValueError(
                f"the score -e/sigma assumes Gaussian noise, but the path's source is "
                f"{self.path.source!r}; use velocity, data or noise, or path.D=inf"
            )
        return -self.noise / expand_as(self.coefficients.sigma, self.noise)

    def combined(self, *, noise: float, velocity: float) -> Tensor:
        """``noise e + velocity v``, in one pass over the state."""
        affine = self.conversion.noise.combined(self.conversion.velocity, noise, velocity)
        return affine(self.x_t, self.output)
