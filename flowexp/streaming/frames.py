"""Sources of frames for a stream."""

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from flowexp.data import Dataset, to_unit_range
from flowexp.data.image_decoding import (
    SUFFIXES,
    NotDecodedError,
    decode_image,
    is_image,
    say_once,
    what_is_left_out,
)
from flowexp.errors import UsageError
from flowexp.files import expanded

__all__ = ["FolderFrames", "FrameSource", "SyntheticFrames"]

_LOG = logging.getLogger(__name__)
_SHOWN_FRAMES = 3
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
    """The images of the folder ``root`` by their names, cut to a square and resized.

    They are decoded as in training, by :func:`~flowexp.data.image_decoding.decode_image`. A stream
    goes on without what is no frame: other files are named at the start, damaged images at the end.
    """

    def __init__(self, *, root: str) -> None:
        self.root = expanded(root)

    def frames(self, dataset: Dataset) -> Iterator[Tensor]:
        channels, height, width = _image_shape(dataset)
        try:
            names = sorted(entry.name for entry in self.root.iterdir())
            lost = [name for name in names if not (self.root / name).is_file()]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._refused("is not a folder") from error
        except OSError as error:
            raise self._refused(f"cannot be read ({error.strerror or error})") from error
        files = [name for name in names if is_image(name) and name not in lost]
        left_out = what_is_left_out(self.root, names, kept=files, lost=lost)
        if left_out is not None:
            say_once(left_out)
        if not files:
            raise self._refused(f"holds no image ({', '.join(SUFFIXES)})")
        return self._decoded([self.root / name for name in files], channels, (width, height))

    def _decoded(
        self, files: Sequence[Path], channels: int, size: tuple[int, int]
    ) -> Iterator[Tensor]:
        skipped = []
        for file in files:
            try:
                frame = _frame(decode_image(file.read_bytes(), channels=channels), channels, size)
            except NotDecodedError as error:
                skipped.append(f"{file.name} {error}")
            except OSError as error:
                skipped.append(f"{file.name} cannot be read ({error.strerror or error})")
            else:
                yield frame
        if not skipped:
            return
        shown = "; ".join(skipped[:_SHOWN_FRAMES]) + ("; ..." if skipped[_SHOWN_FRAMES:] else "")
        if len(skipped) == len(files):
            raise self._refused(f"holds no image that can be read: {shown}")
        _LOG.warning(
            "%s: %d of %d frames were skipped: %s.", self.root, len(skipped), len(files), shown
        )

    def _refused(self, what: str) -> UsageError:
        return UsageError(
            f"{self.root} {what}.",
            key="frames.root",
            remedy="Name a folder of images, e.g. frames.root=~/frames.",
        )


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


def _frame(image: Image.Image, channels: int, size: tuple[int, int]) -> Tensor:
    """An image in the colours and the size of the model's, cut in the middle to its shape."""
    cut = ImageOps.fit(image.convert(_MODES[channels]), size, method=Image.Resampling.LANCZOS)
    levels = torch.from_numpy(np.array(cut, dtype=np.uint8))
    return to_unit_range(levels[None] if levels.ndim == 2 else levels.movedim(-1, 0).contiguous())
