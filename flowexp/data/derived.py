"""Data sets derived from another: some of its classes, or its images after a filter."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from flowexp.data.base import Dataset, ImageArrays
from flowexp.data.digests import Array

__all__ = ["Blurred", "DerivedDataset", "Inverted", "OfClasses"]


class DerivedDataset(Dataset):
    """A data set with the properties of another.

    Raises:
        UsageError: A declared value is not that of the other.
    """

    def __init__(self, dataset: Dataset, *, name: str, hflip: bool, **declared: int) -> None:
        super().__init__(
            name=name,
            shape=dataset.shape,
            num_classes=dataset.num_classes,
            hflip=hflip,
            notice=dataset.notice,
        )
        for key, value in declared.items():
            self._require(key, value, [getattr(dataset, key)])
        self.dataset = dataset
        self.class_names = dataset.class_names

    def locate(self) -> None:
        self.dataset.locate()

    def reading(self) -> dict[str, Any]:
        return self.dataset.reading()


class _Changed(DerivedDataset):
    """The splits of another data set, each changed in the same way."""

    def _read(self) -> ImageArrays:
        return self._changed(self.dataset.train(), split="train")

    def _read_heldout(self) -> ImageArrays | None:
        arrays = self.dataset.heldout()
        return None if arrays is None else self._changed(arrays, split="heldout")

    @abstractmethod
    def _changed(self, arrays: ImageArrays, *, split: str) -> ImageArrays:
        """The changed items of a split."""


class OfClasses(_Changed):
    """The items of some classes of a data set; labels keep their meaning.

    Args:
        dataset: The data set, whose resolution, channels and number of classes are declared again;
            its classes are indices.
        classes: The classes to keep.

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
        super().__init__(
            dataset,
            name=f"{dataset.name}[{chosen}]",
            hflip=hflip,
            resolution=resolution,
            channels=channels,
            num_classes=num_classes,
        )
        self.classes = tuple(classes)

    def _changed(self, arrays: ImageArrays, *, split: str) -> ImageArrays:
        if arrays.labels is None or arrays.labels.ndim != 1:
            raise ValueError(f"{arrays.name} has no class indices to select by")
        mask = np.isin(arrays.labels, self.classes)
        return arrays.select(mask, name=f"{self.name}/{split}")


class _Filtered(_Changed):
    """Every image of a data set, changed.

    Raises:
        ValueError: The data are points.
    """

    def __init__(self, dataset: Dataset, *, hflip: bool = False) -> None:
        if len(dataset.shape) != 3:
            raise ValueError(f"{dataset.name} holds points; expected images")
        name = f"{dataset.name}, {type(self).__name__.lower()}"
        super().__init__(dataset, name=name, hflip=hflip)

    @abstractmethod
    def filtered(self, images: Array) -> Array:
        """Changed images, (N, C, H, W), uint8."""

    def _changed(self, arrays: ImageArrays, *, split: str) -> ImageArrays:
        return ImageArrays.of(
            self.filtered(np.asarray(arrays.images)),
            arrays.labels,
            num_classes=arrays.num_classes,
            name=f"{self.name}/{split}",
            notice=arrays.notice,
        )


class Inverted(_Filtered):
    """Negatives: level u becomes 255 - u, so that data x become -x."""

    def filtered(self, images: Array) -> Array:
        return np.asarray(255 - images)


class Blurred(_Filtered):
    """Images after a filter of 3 x 3 pixels with weights (1, 2, 1) / 4 per axis, edges repeated.

    Its eigenvalues are not negative, so the segments from blurred images to the originals do not
    intersect.
    """

    def filtered(self, images: Array) -> Array:
        wide = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        tall = (wide[..., :-2, :] + 2.0 * wide[..., 1:-1, :] + wide[..., 2:, :]) / 4.0
        mean = (tall[..., :-2] + 2.0 * tall[..., 1:-1] + tall[..., 2:]) / 4.0
        return np.rint(mean).astype(np.uint8)
