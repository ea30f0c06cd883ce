"""Changes of place that need resampling, as matrices of the inverse map.

A point (x, y, 1) of the changed image, counted in pixels from the centre, x to the right and y
down, is taken from ``A (x, y, 1)`` of the original. The transforms of a row are multiplied on the
right in the order in which they are drawn.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.augmentations.draws import Draws, Transform, gated

__all__ = [
    "FractionalShift",
    "GeometricTransform",
    "Rotation",
    "Scaling",
    "Stretching",
    "rotation",
    "scaling",
    "translation",
]


class GeometricTransform(Transform, ABC):
    """A linear map of the plane."""

    @abstractmethod
    def __call__(self, draws: Draws, *, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Inverse matrices (B, 3, 3), float64, and labels (B, columns)."""


@dataclass(frozen=True, kw_only=True)
class Scaling(GeometricTransform):
    """Magnification by ``2^(std w)``, w standard normal; label w.

    Args:
        std: Standard deviation of the binary logarithm.
    """

    std: float

    def __call__(self, draws: Draws, *, height: int, width: int) -> tuple[Tensor, Tensor]:
        """``S(1/s, 1/s)``."""
        w = self.gated(draws.normal(), draws)
        shrink = torch.exp2(-self.std * w)
        return scaling(shrink, shrink), w[:, None]


@dataclass(frozen=True, kw_only=True)
class Rotation(GeometricTransform):
    """Rotation by an angle w uniform up to a share of a half turn; labels ``cos w - 1, sin w``.

    Args:
        largest: Largest angle in half turns.
    """

    columns = 2
    largest: float

    def __call__(self, draws: Draws, *, height: int, width: int) -> tuple[Tensor, Tensor]:
        """``R(w)``, the inverse of a turn by -w."""
        angle = (draws.uniform() * 2.0 - 1.0) * (math.pi * self.largest)
        w = self.gated(angle, draws)
        # -2 sin^2(w/2) is cos w - 1 without cancellation.
        return rotation(w), torch.stack([-2.0 * torch.sin(0.5 * w) ** 2, torch.sin(w)], dim=1)


@dataclass(frozen=True, kw_only=True)
class Stretching(GeometricTransform):
    """Stretching by ``s = 2^(std w)`` along an axis at angle r, shrinking by s across it.

    w is standard normal; r is uniform on the circle, or 0 with probability ``1 - turned``, whether
    the row is stretched or not. Labels ``w cos r, w sin r``.

    Args:
        std: Standard deviation of the binary logarithm.
        turned: Share of rows whose axis is not horizontal.
    """

    columns = 2
    std: float
    turned: float

    def __call__(self, draws: Draws, *, height: int, width: int) -> tuple[Tensor, Tensor]:
        """``R(r) S(1/s, s) R(-r)`` of the inverse rotations."""
        w = draws.normal()
        angle = (draws.uniform() * 2.0 - 1.0) * math.pi
        w = self.gated(w, draws)
        r = gated(angle, draws, probability=self.turned)
        s = torch.exp2(self.std * w)
        inverse = rotation(-r) @ scaling(1.0 / s, s) @ rotation(r)
        return inverse, torch.stack([w * torch.cos(r), w * torch.sin(r)], dim=1)


@dataclass(frozen=True, kw_only=True)
class FractionalShift(GeometricTransform):
    """A shift by normal shares of the image's size; labels w_x, w_y.

    Args:
        std: Standard deviation as a share of width and height.
    """

    columns = 2
    std: float

    def __call__(self, draws: Draws, *, height: int, width: int) -> tuple[Tensor, Tensor]:
        """``T(-w_x std W, -w_y std H)``."""
        w = self.gated(draws.normal(2), draws)
        inverse = translation(-w[0] * (self.std * width), -w[1] * (self.std * height))
        return inverse, w.T


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Shifts of the plane by (x, y), (B, 3, 3)."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrix([one, zero, x, zero, one, y, zero, zero, one])


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Scalings of the axes, (B, 3, 3)."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrix([x, zero, zero, zero, y, zero, zero, zero, one])


def rotation(angle: Tensor) -> Tensor:
    """``(x, y) -> (x cos - y sin, x sin + y cos)``, (B, 3, 3)."""
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return _matrix([cos, -sin, zero, sin, cos, zero, zero, zero, one])


def _matrix(entries: list[Tensor]) -> Tensor:
    return torch.stack(entries, dim=-1).reshape(*entries[0].shape, 3, 3)
