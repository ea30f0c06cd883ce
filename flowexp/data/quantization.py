"""Conversion between the 256 levels of images and a model's floats; nothing else converts them.

    x = u / 127.5 - 1                          u in 0..255, x in [-1, 1]
    u = trunc(clip(127.5 x + 128, 0, 255))

The second formula inverts the first for all 256 levels: 127.5 x + 128 = u + 1/2, half a level away
from the nearest integers.

Source: Karras et al. 2022 (arXiv 2206.00364), as their data loader and generator compute it.
"""

import torch
from torch import Tensor

__all__ = ["as_data", "quantize", "to_unit_range"]


def to_unit_range(images: Tensor) -> Tensor:
    """Images, uint8 levels u of any shape, as data x = u / 127.5 - 1, float32 in [-1, 1].

    Other dtypes raise ``ValueError``: they would be scaled twice.
    """
    if images.dtype != torch.uint8:
        raise ValueError(
            f"images must be uint8 levels in 0..255, but their dtype is {images.dtype}"
        )
    return images.to(torch.float32) / 127.5 - 1.0


def as_data(images: Tensor) -> Tensor:
    """Data x of a batch: images (uint8) are scaled to [-1, 1], floating data are x already."""
    return to_unit_range(images) if images.dtype == torch.uint8 else images


def quantize(x: Tensor) -> Tensor:
    """Data x of any shape as images u = trunc(clip(127.5 x + 128, 0, 255)), uint8.

    Half precision is computed in float32, where the round trip of all 256 levels is exact. Raises
    ``ValueError`` if x is not floating, or holds NaN.
    """
    if not x.is_floating_point():
        raise ValueError(f"x must be floating point data in [-1, 1], but its dtype is {x.dtype}")
    if bool(x.isnan().any()):
        raise ValueError("x holds NaN, which is not a level of an image: the model has diverged")
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    return (wide * 127.5 + 128.0).clamp(0.0, 255.0).to(torch.uint8)
