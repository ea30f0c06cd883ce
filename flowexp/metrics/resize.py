"""Resizing as in the feature extractors' own code; each function is a protocol of its own.

``images`` are (B, C, H, W) of any real dtype with values in 0..255, ``size`` is (height, width);
the result is float32 in the same units, not rounded.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def tf1_bilinear(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear as in TensorFlow 1: source coordinate = j * in / out, clamped to the last pixel.

    The grid is not centred (torch's is (j + 1/2) in/out - 1/2); no antialiasing. This is the resize
    inside the 2015 Inception graph, hence FID's.
    """
    return _lerp(_lerp(images.float(), 2, size[0]), 3, size[1])


def _lerp(x: Tensor, axis: int, size: int) -> Tensor:
    length = x.shape[axis]
    # float32 like the original: the coordinates' rounding is part of the protocol
    position = torch.arange(size, device=x.device, dtype=torch.float32) * (length / size)
    low = position.long().clamp(max=length - 1)
    high = (low + 1).clamp(max=length - 1)
    weight = (position - low).reshape([-1 if i == axis else 1 for i in range(4)])
    return torch.lerp(x.index_select(axis, low), x.index_select(axis, high), weight)


def torch_bilinear(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Half-pixel-centred bilinear without antialiasing: pytorch-fid's resize."""
    return F.interpolate(images.float(), size=size, mode="bilinear")


def torch_bilinear_antialias(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Half-pixel-centred bilinear, low-passed when shrinking: torchmetrics' default."""
    return F.interpolate(images.float(), size=size, mode="bilinear", antialias=True)


def torch_bicubic_antialias(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Half-pixel-centred bicubic, low-passed when shrinking, clamped to 0..255."""
    resized = F.interpolate(images.float(), size=size, mode="bicubic", antialias=True)
    return resized.clamp(0, 255)


def pil_bicubic(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Pillow's bicubic, channel by channel in float32, clamped to 0..255: clean-fid's ``clean``.

    Source: Parmar, Zhang, Zhu 2022, arXiv 2104.11222.
    """
    from PIL import Image

    planes = images.flatten(0, 1).to("cpu", torch.float32).numpy()
    resized = [
        np.asarray(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BICUBIC))
        for plane in planes
    ]
    result = torch.from_numpy(np.stack(resized)).clamp(0, 255)
    return result.reshape(*images.shape[:2], *size).to(images.device)
