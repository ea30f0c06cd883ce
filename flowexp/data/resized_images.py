"""Images of another library's data set, made square and of one size as ``flowexp prepare`` does."""

from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from flowexp.config.problems import did_you_mean
from flowexp.data.base import Dataset, ImageArrays
from flowexp.data.cropping import CROPS
from flowexp.data.digests import Array
from flowexp.data.image_decoding import NotDecodedError, planes, say_once
from flowexp.errors import UsageError
from flowexp.progress import track
from flowexp.threads import workers

__all__ = ["WHITE", "ResizedImages"]

WHITE = (255, 255, 255)
_MODES = {1: "L", 3: "RGB"}
_THREADS = 8


class ResizedImages(Dataset):
    """Images that are cropped to squares, resized if needed, and kept in memory.

    They are read at every start; a large data set should be written once with ``flowexp prepare``.
    Transparent pixels become white.

    Args:
        resolution: Width and height, in pixels.
        channels: 1 for grey, 3 for colour; images are converted.
        num_classes: Number of classes; 0 = ignore the labels.
        crop: ``center``, ``adm``, ``pad`` or ``none``.
        class_names: Names of the classes 0, 1, ..., or None.
    """

    def __init__(
        self,
        *,
        name: str,
        resolution: int,
        channels: int,
        num_classes: int,
        crop: str,
        hflip: bool,
        class_names: Sequence[str] | None,
    ) -> None:
        super().__init__(
            name=name,
            shape=(channels, resolution, resolution),
            num_classes=num_classes,
            hflip=hflip,
        )
        self._require("channels", channels, [1, 3])
        if crop not in CROPS:
            raise UsageError(
                f"unknown value {crop!r}.", key="dataset.crop", remedy=did_you_mean(crop, CROPS)
            )
        if class_names is not None:
            self.class_names = tuple(class_names)
        self.crop = crop

    @abstractmethod
    def _item(self, split: str, index: int) -> tuple[Image.Image, int]:
        """An image in mode L or RGB, and its class.

        Raises:
            NotDecodedError: The file cannot be decoded.
        """

    @abstractmethod
    def _count(self, split: str) -> int:
        """The number of images of a split."""

    def _arrays(self, split: str) -> ImageArrays:
        count = self._count(split)
        images = np.empty((count, *self.shape), dtype=np.uint8)
        with ThreadPoolExecutor(workers(_THREADS)) as pool:
            made = pool.map(lambda i: self._put(images[i], split, i), range(count))
            items = list(track(made, "decoded", unit=f"images of {self.name}", total=count))
        if smaller := sum(enlarged for _, enlarged in items):
            size = f"{self.resolution}x{self.resolution}"
            say_once(f"{self.name}: {smaller} of {count} images were smaller than {size}.")
        classes = np.array([label for label, _ in items], dtype=np.int64)
        labels = classes if self.num_classes else None
        name = f"{self.name}/{split}"
        return ImageArrays.of(images, labels, num_classes=self.num_classes, name=name)

    def _put(self, target: Array, split: str, index: int) -> tuple[int, bool]:
        """Write an image into an array (C, H, W); returns its class and whether it was enlarged."""
        crop = CROPS[self.crop]
        try:
            found, label = self._item(split, index)
            image = found.convert(_MODES[self.channels])
            target[...] = planes(crop.make(image, self.resolution, WHITE))
        except NotDecodedError as error:
            raise UsageError(f"{self.name}: image {index} {error}.", key="dataset") from error
        return label, crop.fitted(image.size) < self.resolution
