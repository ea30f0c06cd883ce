"""Images whose size does not fit: padded before a network, cropped after it."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["crop", "pad_to_multiple"]


def pad_to_multiple(
    x: Tensor, *, multiple: int, value: float = 0.0
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Images (..., H, W), padded by ``value`` to the next multiple of ``multiple``, and the border.

    The border, (left, right, top, bottom) in pixels, is as even as possible; ``x`` itself is
    returned if the size fits. Zeros rather than reflection: they work for every size and, like the
    zero padding of the convolutions, mark the border of the image.
    """
    missing_h, missing_w = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    left, top = missing_w // 2, missing_h // 2
    border = (left, missing_w - left, top, missing_h - top)
    return (F.pad(x, border, value=value) if any(border) else x), border


def crop(x: Tensor, *, border: tuple[int, int, int, int]) -> Tensor:
    """Remove the border that :func:`pad_to_multiple` added."""
    if not any(border):
        return x
    left, right, top, bottom = border
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]
