"""Data sets derived from another: some of its classes, or its pictures after a filter."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from flowexp.data.base import Dataset, ImageArrays

__all__ = ["Blurred", "Inverted", "OfClasses"]

Array = npt.NDArray[Any]


class _Derived(Dataset):
    """A data set with the properties of another, except for what is changed."""

    def __init__(self, dataset: Dataset, *, name: str, hflip: bool) -> None:
        super().__init__(
            name=name,
            shape=dataset.shape,
            num_classes=dataset.num_classes,
            hflip=hflip,
            notice=dataset.notice,
        )
        self.dataset = dataset
        self.class_names = dataset.class_names

    def locate(self) -> None:
        self.dataset.locate()

    def _read(self) -> ImageArrays:
        return self._changed(self.dataset.train(), split="train")

    def _read_heldout(self) -> ImageArrays | None:
        arrays = self.dataset.heldout()
        return None if arrays is None else self._changed(arrays, split="heldout")

    @abstractmethod
    def _changed(self, arrays: ImageArrays, *, split: str) -> ImageArrays:
        """The changed items of a split."""


class OfClasses(_Derived):
    """The items of some classes of a data set; labels keep their meaning.

    Args:
        dataset: The data set; its classes are indices.
        classes: The classes to keep.
        resolution: That of the data set.
        channels: That of the data set.
        num_classes: That of the data set.
        hflip: Whether training mirrors pictures at random.

    Raises:
        ValueError: There is no such class.
        UsageError: A declared value is not that of the data set.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        classes: Sequence[int],
        resolution: int,
        channels: int,
        num_classes: int,
        hflip: bool = False,
    ) -> None:
        wrong = [k for k in classes if not 0 <= k < dataset.num_classes]
        if wrong or not classes:
            raise ValueError(
                f"classes is {list(classes)}; allowed: some of 0 to {dataset.num_classes - 1}"
            )
        chosen = "+".join(str(k) for k in classes)
        super().__init__(dataset, name=f"{dataset.name}[{chosen}]", hflip=hflip)
        self._require("resolution", resolution, [dataset.resolution])
        self._require("channels", channels, [dataset.channels])
        self._require("num_classes", num_classes, [dataset.num_classes])
        self.classes = tuple(classes)

    def _changed(self, arrays: ImageArrays, *, split: str) -> ImageArrays:
        if arrays.labels is None or arrays.labels.ndim != 1:
            raise ValueError(f"{arrays.name} has no class indices to select by")
        mask = np.isin(arrays.labels, self.classes)
        return arrays.select(mask, name=f"{self.name}/{split}")


class _Filtered(_Derived):
    """Every picture of a data set, changed.

    Args:
        dataset: The pictures.
        hflip: Whether training mirrors pictures at random.

    Raises:
        ValueError: The data are points.
    """

    def __init__(self, dataset: Dataset, *, hflip: bool = False) -> None:
        if len(dataset.shape) != 3:
            raise ValueError(f"{dataset.name} holds points; expected pictures")
        super().__init__(
            dataset, name=f"{dataset.name}, {type(self).__name__.lower()}", hflip=hflip
        )

    @abstractmethod
    def filtered(self, images: Array) -> Array:
        """Changed pictures, (N, C, H, W), uint8."""

    def _changed(self, arrays: ImageArrays, *, split: str) -> ImageArrays:
        changed = ImageArrays.of(
            self.filtered(np.asarray(arrays.images)),
            arrays.labels,
            num_classes=arrays.num_classes,
            name=f"{self.name}/{split}",
        )
        return replace(changed, notice=arrays.notice)


class Inverted(_Filtered):
    """Negatives: level u becomes 255 - u, so that data x become -x.

    See the base class for the arguments.
    """

    def filtered(self, images: Array) -> Array:
        return np.asarray(255 - images)


class Blurred(_Filtered):
    """Pictures after a filter of 3 x 3 pixels with weights (1, 2, 1) / 4 per axis.

    Its eigenvalues are not negative, so the segments from blurred pictures to the originals do not
    intersect.

    See the base class for the arguments.
    """

    def filtered(self, images: Array) -> Array:
        """Weighted means of 3 x 3 pixels, edges repeated, rounded to levels."""
        wide = images.astype(np.float64)
        for axis in (-2, -1):
            margin = [(1, 1) if n == axis % 4 else (0, 0) for n in range(4)]
            padded = np.pad(wide, margin, mode="edge")
            before, middle, after = (
                np.take(padded, np.arange(wide.shape[axis]) + shift, axis=axis)
                for shift in range(3)
            )
            wide = (before + 2.0 * middle + after) / 4.0
        return np.rint(wide).astype(np.uint8)
