"""Laws of random holes in images.

A law turns uniform numbers into holes, row by row, so that a hole is a function of the draws of its
own row: of a seed in evaluation, of a row of the batch in training.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from flowexp.requirements import Part

__all__ = ["Box", "Half", "MaskLaw", "RandomPixels", "Strokes"]


class MaskLaw(Part, ABC):
    """The distribution of a hole in an image.

    Constructors raise ``ValueError`` for an argument outside the range that their docstring states.
    """

    @abstractmethod
    def uniforms(self, height: int, width: int) -> int:
        """How many uniform numbers a hole in an image of this size needs."""

    @abstractmethod
    def holes(self, uniforms: Tensor, height: int, width: int) -> Tensor:
        """Where the holes are, (B, height, width), bool.

        ``uniforms`` are in [0, 1), (B, self.uniforms(height, width)).
        """


def _range(name: str, values: Sequence[float]) -> tuple[float, float]:
    """A range (low, high) of shares of the image, within (0, 1]."""
    if len(values) != 2 or not 0.0 < values[0] <= values[1] <= 1.0:
        raise ValueError(f"{name} is {list(values)}; expected [low, high] within (0, 1]")
    return float(values[0]), float(values[1])


class Box(MaskLaw):
    """A rectangle at a random place inside the image.

    Args:
        sides: Range (low, high) of height and width as shares of the image's, within (0, 1]; they
            are drawn separately.
    """

    def __init__(self, *, sides: Sequence[float] = (0.3, 0.6)) -> None:
        self.sides = _range("sides", sides)

    def uniforms(self, height: int, width: int) -> int:
        return 4

    def holes(self, uniforms: Tensor, height: int, width: int) -> Tensor:
        low, high = self.sides
        inside = []
        for size, draws in ((height, uniforms[:, :2]), (width, uniforms[:, 2:])):
            extent = ((low + (high - low) * draws[:, :1]) * size).round().clamp(min=1.0)
            start = (draws[:, 1:] * (size - extent + 1.0)).floor()
            places = torch.arange(size, device=draws.device)
            inside.append((places >= start) & (places < start + extent))
        rows, columns = inside
        return rows[:, :, None] & columns[:, None, :]


class Half(MaskLaw):
    """The left, right, upper or lower half of the image, each with probability 1/4."""

    def uniforms(self, height: int, width: int) -> int:
        return 1

    def holes(self, uniforms: Tensor, height: int, width: int) -> Tensor:
        rows = (torch.arange(height, device=uniforms.device) < height // 2)[:, None]
        columns = (torch.arange(width, device=uniforms.device) < width // 2)[None, :]
        halves = torch.stack(
            [part.expand(height, width) for part in (rows, ~rows, columns, ~columns)]
        )
        return halves[(uniforms[:, 0] * 4.0).long()]


class Strokes(MaskLaw):
    """Strokes of a brush: chains of straight segments from random starts into random directions.

    Args:
        count: Number of strokes, >= 1.
        segments: Segments of a stroke, >= 1.
        length: Range (low, high) of a segment's length as a share of the image's height, within
            (0, 1].
        thickness: Range of a stroke's thickness, likewise.
    """

    def __init__(
        self,
        *,
        count: int = 3,
        segments: int = 4,
        length: Sequence[float] = (0.1, 0.4),
        thickness: Sequence[float] = (0.08, 0.2),
    ) -> None:
        for name, value in (("count", count), ("segments", segments)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        self.count = count
        self.segments = segments
        self.length = _range("length", length)
        self.thickness = _range("thickness", thickness)

    def uniforms(self, height: int, width: int) -> int:
        return self.count * (3 + 2 * self.segments)

    def holes(self, uniforms: Tensor, height: int, width: int) -> Tensor:
        draws = uniforms.reshape(len(uniforms), self.count, -1)
        scale = torch.tensor([height, width], dtype=draws.dtype, device=draws.device)
        low, high = self.thickness
        # at least so large that a stroke covers the pixel in which it starts
        radius = ((low + (high - low) * draws[..., 2]) * height / 2.0).clamp(min=0.75)
        angle, share = (2.0 * torch.pi * draws[..., 3::2], draws[..., 4::2])
        length = (self.length[0] + (self.length[1] - self.length[0]) * share) * height
        steps = length[..., None] * torch.stack([angle.sin(), angle.cos()], dim=-1)
        start = draws[..., None, :2] * scale
        corners = torch.cat([start, start + steps.cumsum(dim=2)], dim=2)
        axes = (torch.arange(size, device=draws.device) + 0.5 for size in (height, width))
        pixels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        found = torch.zeros(len(draws), height, width, dtype=torch.bool, device=draws.device)
        # One segment at a time: distances of all would be many times as large as the images.
        for stroke in range(self.count):
            for k in range(self.segments):
                first, last = corners[:, stroke, k], corners[:, stroke, k + 1]
                distance = _distances(pixels, first, last)
                found |= distance <= radius[:, stroke, None, None]
        return found


def _distances(pixels: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Distances of points (H, W, 2) from segments, given by their ends (B, 2): (B, H, W)."""
    along = (last - first)[:, None, None, :]
    offset = pixels - first[:, None, None, :]
    share = (offset * along).sum(-1) / along.square().sum(-1).clamp(min=1e-12)
    nearest = share.clamp(0.0, 1.0)[..., None] * along
    distance: Tensor = torch.linalg.vector_norm(offset - nearest, dim=-1)
    return distance


class RandomPixels(MaskLaw):
    """Pixels at random places: exactly ``int(share H W)`` of them, without replacement.

    Args:
        share: Share of the pixels that are hidden, in (0, 1).

    Source: the degradation of Ohayon et al., PMRF, 2024, arXiv 2410.00418: share 0.9.
    """

    def __init__(self, *, share: float = 0.9) -> None:
        if not 0.0 < share < 1.0:
            raise ValueError(f"share is {share}; expected a number in (0, 1)")
        self.share = float(share)

    def uniforms(self, height: int, width: int) -> int:
        return height * width

    def holes(self, uniforms: Tensor, height: int, width: int) -> Tensor:
        hidden = int(self.share * height * width)
        order = uniforms.argsort(dim=1, stable=True)
        found = torch.zeros_like(uniforms, dtype=torch.bool)
        found.scatter_(1, order[:, :hidden], True)
        return found.reshape(-1, height, width)
