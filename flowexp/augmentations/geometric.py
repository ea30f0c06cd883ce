"""Changes of place as matrices of the inverse map, and resampling under them without aliasing.

A point (x, y, 1) of the changed image, counted in pixels from the centre, x to the right and y
down, is taken from ``A (x, y, 1)`` of the original. The transforms of a row are multiplied on the
right in the order in which they are drawn.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.augmentations.base import RowDraws, Transform, Turn

__all__ = ["FractionalShift", "GeometricTransform", "Rotation", "Scaling", "Stretching", "resample"]

# Low-pass filter of the symlet-6 wavelet, of sum sqrt 2: doubling and halving with it are inverses.
_SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_BORDER = len(_SYM6) // 4


class GeometricTransform(Transform, ABC):
    """A linear map of the plane."""

    @abstractmethod
    def __call__(self, draws: RowDraws, *, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Inverse matrices (B, 3, 3), float64, and labels (B, columns)."""


@dataclass(frozen=True, kw_only=True)
class Scaling(GeometricTransform):
    """Magnification by ``2^(std w)``, w standard normal; label w."""

    std: float

    def __call__(self, draws: RowDraws, *, height: int, width: int) -> tuple[Tensor, Tensor]:
        """``S(1/s, 1/s)``."""
        w = self.gated(draws.normal(), draws)
        shrink = torch.exp2(-self.std * w)
        return scaling(shrink, shrink), w[:, None]


class Rotation(Turn, GeometricTransform):
    """Rotation of the image."""

    def __call__(self, draws: RowDraws, *, height: int, width: int) -> tuple[Tensor, Tensor]:
        """``R(w)``, the inverse of a turn by -w."""
        w, label = self.angles(draws)
        return rotation(w), label


@dataclass(frozen=True, kw_only=True)
class Stretching(GeometricTransform):
    """Stretching by ``s = 2^(std w)`` along an axis at angle r, shrinking by s across it.

    w is standard normal; r is uniform on the circle, or 0 with probability ``1 - turned``, whether
    the row is stretched or not. Labels ``w cos r, w sin r``.
    """

    columns = 2
    std: float
    turned: float

    def __call__(self, draws: RowDraws, *, height: int, width: int) -> tuple[Tensor, Tensor]:
        """``R(r) S(1/s, s) R(-r)`` of the inverse rotations."""
        w = draws.normal()
        angle = (draws.uniform() * 2.0 - 1.0) * math.pi
        w = self.gated(w, draws)
        r = self.gated(angle, draws, share=self.turned)
        s = torch.exp2(self.std * w)
        inverse = rotation(-r) @ scaling(1.0 / s, s) @ rotation(r)
        return inverse, torch.stack([w * torch.cos(r), w * torch.sin(r)], dim=1)


@dataclass(frozen=True, kw_only=True)
class FractionalShift(GeometricTransform):
    """A shift by ``std w`` of the image's size, w_x and w_y standard normal, the labels."""

    columns = 2
    std: float

    def __call__(self, draws: RowDraws, *, height: int, width: int) -> tuple[Tensor, Tensor]:
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


def resample(images: Tensor, inverse: Tensor) -> Tensor:
    """Images changed by linear maps, with mirror images beyond their edges.

    Images are padded by reflection, doubled in size, sampled bilinearly and halved again. The
    padding is that of the row that needs most, at most a whole image less a pixel; beyond that
    there are zeros. Padding that a row does not need changes it by rounding only.

    Args:
        images: (B, C, H, W), floating.
        inverse: Maps from the new to the old image in pixels from the centre, (B, 3, 3), float64,
            preferably on the CPU, where the padding is computed.

    Source: Karras et al., Training GANs with Limited Data, 2020, arXiv 2006.06676, appendix B.
    """
    height, width = images.shape[2:]
    left, top, right, bottom = _margins(inverse, height=height, width=width)
    padded = F.pad(images, [left, right, top, bottom], mode="reflect")
    doubled = _double(padded)
    shape = [2 * (height + 2 * _BORDER), 2 * (width + 2 * _BORDER)]
    offset = inverse.new_tensor([(left - right) / 2, (top - bottom) / 2])
    centred = translation(offset[0], offset[1]) @ inverse
    inverse = _in_unit_squares(centred, source=doubled.shape[2:], target=shape)
    grid = _places(inverse.to(device=images.device, dtype=images.dtype), *shape)
    return _halve(F.grid_sample(doubled, grid, align_corners=False))


def _margins(inverse: Tensor, *, height: int, width: int) -> list[int]:
    """Pixels to add left, top, right and bottom, so that every corner and its filter lie inside."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    corners = inverse.new_tensor([[-cx, cx, cx, -cx], [-cy, -cy, cy, cy], [1.0, 1.0, 1.0, 1.0]])
    reached = (inverse @ corners)[:, :2]
    furthest = torch.cat([-reached.amin(dim=(0, 2)), reached.amax(dim=(0, 2))])
    own = inverse.new_tensor([cx, cy, cx, cy])
    largest = inverse.new_tensor([width - 1, height - 1, width - 1, height - 1])
    needed = torch.minimum((furthest - own + 2 * _BORDER).clamp(min=0.0), largest)
    margins: list[int] = needed.ceil().to(torch.int64).tolist()
    return margins


def _in_unit_squares(inverse: Tensor, *, source: Sequence[int], target: Sequence[int]) -> Tensor:
    """The map between doubled images, in grid_sample's coordinates (-1 to 1 across each).

    A pixel of the original becomes two, whose common centre lies half a pixel off the doubled
    image's centre.
    """

    def plane(x: float, y: float) -> tuple[Tensor, Tensor]:
        return inverse.new_tensor(x), inverse.new_tensor(y)

    doubled = scaling(*plane(2.0, 2.0)) @ inverse @ scaling(*plane(0.5, 0.5))
    moved = translation(*plane(-0.5, -0.5)) @ doubled @ translation(*plane(0.5, 0.5))
    into = scaling(*plane(2.0 / source[1], 2.0 / source[0]))
    out_of = scaling(*plane(target[1] / 2.0, target[0] / 2.0))
    return into @ moved @ out_of


def _places(inverse: Tensor, height: int, width: int) -> Tensor:
    """Where the pixels of the new image come from, (B, height, width, 2).

    ``torch.nn.functional.affine_grid`` without its matrix product, which may run in TF32 and then
    rounds places to 11 bits.
    """
    rows = torch.arange(height, dtype=inverse.dtype, device=inverse.device)
    columns = torch.arange(width, dtype=inverse.dtype, device=inverse.device)
    y = ((2.0 * rows + 1.0) / height - 1.0)[None, :, None, None]
    x = ((2.0 * columns + 1.0) / width - 1.0)[None, None, :, None]
    of_x, of_y, offset = inverse[:, None, None, :2].unbind(dim=-1)
    return of_x * x + of_y * y + offset


def _double(images: Tensor) -> Tensor:
    """Twice the size: zeros between the pixels, then the filter, axis by axis.

    ``out[2m] = sum over odd j of h[j] x[m + (5 - j)/2]``, and for ``out[2m + 1]`` over even j of
    ``h[j] x[m + (6 - j)/2]``. Sums of shifted images instead of a convolution, which may run in
    TF32 too.
    """
    for dim in (3, 2):
        size = images.shape[dim]
        padded = F.pad(images, [0, 0] * (3 - dim) + [_BORDER, _BORDER])
        phases = []
        for first in (1, 0):
            taps = _SYM6[first::2]
            starts = range(2 * _BORDER - first, -first, -1)
            parts = [padded.narrow(dim, start, size) for start in starts]
            phases.append(_weighted_sum(parts, taps))
        images = torch.stack(phases, dim=dim + 1).flatten(dim, dim + 1)
    return images


def _halve(images: Tensor) -> Tensor:
    """The filter, then every second pixel, without the border: ``sum_j h[j] x[2i + 1 + j]``."""
    for dim in (3, 2):
        size = images.shape[dim] // 2 - 2 * _BORDER
        parts = [
            images.narrow(dim, 1 + j, 2 * size)[(slice(None),) * dim + (slice(None, None, 2),)]
            for j in range(len(_SYM6))
        ]
        images = _weighted_sum(parts, _SYM6)
    return images


def _weighted_sum(parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = parts[0] * weights[0]
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total.add_(part, alpha=weight)
    return total
