"""Sources of frames for a stream."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowexp.data import Dataset, to_unit_range
from flowexp.errors import UsageError
from flowexp.files import expanded

__all__ = ["FolderFrames", "FrameSource", "SyntheticFrames"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_MODES = {1: "L", 3: "RGB"}


class FrameSource(ABC):
    """A camera or a replacement: frames one after the other."""

    @abstractmethod
    def frames(self, dataset: Dataset) -> Iterator[Tensor]:
        """Frames (C, H, W), float32 in [-1, 1], of the shape of the data set's images.

        ``dataset`` is the training data of the model. The iterator may block between two frames; it
        runs in a thread of its own.

        Raises:
            UsageError: There are no frames, or the data set holds no images.
        """


class FolderFrames(FrameSource):
    """The images of the folder ``root`` by their names, cut to a square and resized."""

    def __init__(self, *, root: str) -> None:
        self.root = expanded(root)

    def frames(self, dataset: Dataset) -> Iterator[Tensor]:
        channels, height, width = _image_shape(dataset)
        remedy = "Name a folder of images, e.g. frames.root=~/frames."
        if not self.root.is_dir():
            raise UsageError(f"{self.root} is not a folder.", key="frames.root", remedy=remedy)
        files = sorted(p for p in self.root.iterdir() if p.suffix.lower() in _SUFFIXES)
        if not files:
            problem = f"{self.root} holds no image ({', '.join(_SUFFIXES)})."
            raise UsageError(problem, key="frames.root", remedy=remedy)
        return (_read(file, _MODES[channels], (width, height)) for file in files)


class SyntheticFrames(FrameSource):
    """A video of a data set's held-out images: one after the other, sliding in a circle.

    Args:
        count: Number of frames, >= 1.
        hold: Frames for which one image is shown, >= 1.
        radius: Radius of the circle in pixels, >= 0; 0 = stills.
        fps: Frames per second, > 0, as of a camera; None = as fast as they are taken.
    """

    def __init__(
        self, *, count: int = 64, hold: int = 16, radius: float = 2.0, fps: float | None = None
    ) -> None:
        if count < 1 or hold < 1 or not radius >= 0.0:
            raise ValueError(
                f"need count >= 1, hold >= 1, radius >= 0, got count={count}, hold={hold}, "
                f"radius={radius}"
            )
        if fps is not None and not fps > 0.0:
            raise ValueError(f"fps is {fps}; expected a positive number or null")
        self.count = count
        self.hold = hold
        self.radius = float(radius)
        self.fps = fps

    def frames(self, dataset: Dataset) -> Iterator[Tensor]:
        _image_shape(dataset)
        return self._moving((dataset.heldout() or dataset.train()).images)

    def _moving(self, images: npt.NDArray[Any]) -> Iterator[Tensor]:
        due = time.monotonic()
        for k in range(self.count):
            if self.fps is not None:
                time.sleep(max(0.0, due - time.monotonic()))
                due += 1.0 / self.fps
            image = torch.from_numpy(np.array(images[(k // self.hold) % len(images)]))
            angle = 2.0 * math.pi * k / self.hold
            shift = round(self.radius * math.sin(angle)), round(self.radius * math.cos(angle))
            yield torch.roll(to_unit_range(image), shift, dims=(-2, -1))


def _image_shape(dataset: Dataset) -> tuple[int, int, int]:
    shape = dataset.shape
    if len(shape) != 3 or shape[0] not in _MODES:
        raise UsageError(
            f"a stream needs images of 1 or 3 channels, but the data have the shape {shape}.",
            key="run",
            remedy="Use a run that was trained on images.",
        )
    return shape[0], shape[1], shape[2]


def _read(file: Path, mode: str, size: tuple[int, int]) -> Tensor:
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        cut = ImageOps.fit(image.convert(mode), size, method=Image.Resampling.LANCZOS)
    levels = torch.from_numpy(np.array(cut, dtype=np.uint8))
    return to_unit_range(levels[None] if levels.ndim == 2 else levels.movedim(-1, 0).contiguous())
