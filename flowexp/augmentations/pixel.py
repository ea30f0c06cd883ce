"""Changes that move pixels without touching their values."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.augmentations.base import RowDraws, Transform

__all__ = ["PixelTransform", "QuarterTurns", "WholePixelShift", "XFlip", "YFlip"]


class PixelTransform(Transform, ABC):
    """A rearrangement of pixels."""

    @abstractmethod
    def __call__(self, images: Tensor, draws: RowDraws) -> tuple[Tensor, Tensor]:
        """Rearranged images (B, C, H, W) and labels (B, columns) on the draws' device."""


class XFlip(PixelTransform):
    """Left-right mirror image with probability one half; label 0 or 1."""

    axis = 3

    def __call__(self, images: Tensor, draws: RowDraws) -> tuple[Tensor, Tensor]:
        w = self.gated(draws.integers(2), draws)
        return _where(w == 1, images.flip(self.axis), images), w[:, None]


class YFlip(XFlip):
    """Upside-down mirror image with probability one half; label 0 or 1."""

    axis = 2


class QuarterTurns(PixelTransform):
    """0 to 3 quarter turns with equal probability; labels: turns are 1 or 2, turns are 2 or 3."""

    columns = 2

    def __call__(self, images: Tensor, draws: RowDraws) -> tuple[Tensor, Tensor]:
        """Images, which must be square, turned as by ``torch.rot90(x, w, (2, 3))``."""
        if images.shape[2] != images.shape[3]:
            raise ValueError(f"quarter turns need square images, not {tuple(images.shape[2:])}")
        w = self.gated(draws.integers(4), draws)
        for turns in (1, 2, 3):
            images = _where(w == turns, torch.rot90(images, turns, (2, 3)), images)
        return images, torch.stack([(w == 1) | (w == 2), (w == 2) | (w == 3)], dim=1)


@dataclass(frozen=True, kw_only=True)
class WholePixelShift(PixelTransform):
    """A shift by whole pixels, uniform up to a share of the size; reflected at the edges.

    Labels: the rounded shift over the largest one, (x to the right, y upwards).
    """

    columns = 2
    largest: float

    def __call__(self, images: Tensor, draws: RowDraws) -> tuple[Tensor, Tensor]:
        batch, channels, height, width = images.shape
        w = self.gated(draws.uniform(2) * 2.0 - 1.0, draws)
        size = torch.tensor([width, height], dtype=w.dtype, device=w.device) * self.largest
        shift = (w * size[:, None]).round()
        tx, ty = shift.to(device=images.device, dtype=torch.int64)
        x = _reflected(torch.arange(width, device=images.device) - tx[:, None], width)
        y = _reflected(torch.arange(height, device=images.device) + ty[:, None], height)
        index = (y[:, :, None] * width + x[:, None, :]).reshape(batch, 1, -1)
        moved = images.flatten(2).gather(2, index.expand(-1, channels, -1))
        return moved.reshape(images.shape), (shift / size[:, None]).T


def _where(rows: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    return torch.where(rows.to(images.device)[:, None, None, None], changed, images)


def _reflected(place: Tensor, size: int) -> Tensor:
    """Places beyond 0 .. size - 1 folded back at the outermost pixels."""
    last = size - 1
    return last - (last - place % max(2 * last, 1)).abs()
