"""Changes of colour, as affine maps of (red, green, blue) with grey at 0.

The luma axis is (1, 1, 1)/sqrt 3. The transforms of a row are multiplied on the left in the order
in which they are drawn.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.augmentations.base import RowDraws, Transform, Turn

__all__ = [
    "Brightness",
    "ColorTransform",
    "Contrast",
    "HueTurn",
    "LumaFlip",
    "Saturation",
    "recolor",
]


class ColorTransform(Transform, ABC):
    """An affine map of colours."""

    @abstractmethod
    def __call__(self, draws: RowDraws) -> tuple[Tensor, Tensor]:
        """Matrices (B, 4, 4), float64, and labels (B, columns)."""


@dataclass(frozen=True, kw_only=True)
class _Normal(ColorTransform):
    """One standard normal number w per row, which is the label and enters as ``std w``."""

    std: float

    def __call__(self, draws: RowDraws) -> tuple[Tensor, Tensor]:
        w = self.gated(draws.normal(), draws)
        return self.matrix(self.std * w), w[:, None]

    @abstractmethod
    def matrix(self, amount: Tensor) -> Tensor:
        """Matrices (B, 4, 4) at ``amount = std w``, (B,)."""


class Brightness(_Normal):
    """``std w`` added to every channel."""

    def matrix(self, amount: Tensor) -> Tensor:
        shift = amount[:, None, None].expand(-1, 3, 1)
        return _affine(torch.eye(3, dtype=amount.dtype, device=amount.device), shift)


class Contrast(_Normal):
    """All channels times ``2^(std w)``."""

    def matrix(self, amount: Tensor) -> Tensor:
        eye = torch.eye(3, dtype=amount.dtype, device=amount.device)
        return _affine(eye * torch.exp2(amount)[:, None, None])


class Saturation(_Normal):
    """The part across the luma axis times ``2^(std w)``."""

    def matrix(self, amount: Tensor) -> Tensor:
        along, across = _luma(amount)
        return _affine(along + across * torch.exp2(amount)[:, None, None])


class LumaFlip(ColorTransform):
    """Mirror image of the luma with probability one half, colours kept; label 0 or 1."""

    def __call__(self, draws: RowDraws) -> tuple[Tensor, Tensor]:
        w = self.gated(draws.integers(2), draws).to(torch.float64)
        along, across = _luma(w)
        return _affine(across + along * (1.0 - 2.0 * w)[:, None, None]), w[:, None]


class HueTurn(Turn, ColorTransform):
    """Rotation about the luma axis."""

    def __call__(self, draws: RowDraws) -> tuple[Tensor, Tensor]:
        """Rodrigues' formula about the luma axis."""
        w, label = self.angles(draws)
        along, across = _luma(w)
        cross = w.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
        cos, sin = torch.cos(w)[:, None, None], torch.sin(w)[:, None, None]
        return _affine(along + across * cos + cross * sin), label


def recolor(images: Tensor, matrix: Tensor) -> Tensor:
    """Images (B, C, H, W) with their colours mapped by matrices (B, 4, 4), float64.

    C is 3, or 1: then it is the map of grey, averaged over channels.
    """
    channels = images.shape[1]
    if channels not in (1, 3):
        raise ValueError(f"colour changes need 1 or 3 channels, not {channels}")
    linear, shift = matrix[:, :3, :3], matrix[:, :3, 3:]
    if channels == 1:
        linear = linear.sum(dim=2, keepdim=True).mean(dim=1, keepdim=True)
        shift = shift.mean(dim=1, keepdim=True)
    # Not a matrix product, which may run in TF32.
    flat = (linear.to(images)[..., None] * images.flatten(2)[:, None]).sum(dim=2)
    return (flat + shift.to(images)).reshape(images.shape)


def _luma(like: Tensor) -> tuple[Tensor, Tensor]:
    """Projections onto the luma axis and across it, (3, 3)."""
    along = like.new_full((3, 3), 1.0 / 3.0)
    return along, torch.eye(3, dtype=like.dtype, device=like.device) - along


def _affine(linear: Tensor, shift: Tensor | None = None) -> Tensor:
    """``(B, 4, 4)`` from a linear part (3, 3) or (B, 3, 3) and a shift (B, 3, 1)."""
    batch = len(linear) if shift is None else len(shift)
    matrix = torch.eye(4, dtype=linear.dtype, device=linear.device).repeat(batch, 1, 1)
    matrix[:, :3, :3] = linear
    if shift is not None:
        matrix[:, :3, 3:] = shift
    return matrix
