"""The samples themselves as features, for toy points and small digits."""

from typing import Self

import torch
from torch import Tensor

from flowexp.metrics.base import Extractor
from flowexp.metrics.protocol import UINT8


class RawValues(Extractor):
    """Flattened values: points as they are, uint8 images as v / 127.5 - 1.

    Sensible while C * H * W is small against the sample count.
    """

    name = "raw values"
    dim: int | None = None
    weights_sha256: str | None = None
    resize = "none"
    on_points: bool = True
    quantization = f"{UINT8}; points none"

    def __init__(self) -> None:
        self._device = torch.device("cpu")

    def load(self, *, device: torch.device | str = "cpu") -> Self:
        self._device = torch.device(device)
        return self

    def __call__(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            return images.to(self._device).flatten(1).float() / 127.5 - 1
        if images.is_floating_point() and images.ndim == 2:
            return images.to(self._device, torch.float32)
        raise ValueError(
            "samples must be uint8 images or (B, D) floating-point points, "
            f"got {images.dtype} of shape {tuple(images.shape)}"
        )
