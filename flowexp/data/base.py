"""What a data set is: declared facts first, arrays when asked, and an identity of the content."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flowexp.data.digests import array_digest, combine_digests, digest_header, fingerprint
from flowexp.data.partners import Partners
from flowexp.errors import UsageError
from flowexp.requirements import Part, Parts, Unmet, all_of

__all__ = [
    "Dataset",
    "ImageArrays",
    "array_digest",
    "combine_digests",
    "digest_header",
    "evenly_spaced",
    "fingerprint",
]

Array = npt.NDArray[Any]


def evenly_spaced(labels: Array, *, per_class: int) -> Array:
    """Mask of ``per_class`` items of every class, evenly spaced in the order of the file.

    A split without random numbers cannot change with a library's version.

    Args:
        labels: Classes, (N,), int64.
        per_class: How many items of each class the mask selects.

    Raises:
        ValueError: If a class has fewer items than that.
    """
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < per_class:
            raise ValueError(f"per_class={per_class} but class {label} has {len(members)} items")
        mask[members[(2 * np.arange(per_class) + 1) * len(members) // (2 * per_class)]] = True
    return mask


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """A split of a data set in memory or memory-mapped.

    Attributes:
        images: Pictures (N, C, H, W), uint8, or float32 in [-1, 1] where a model made them and its
            values matter; or points (N, D), float32.
        labels: Classes (N,), int64; or label vectors (N, num_classes), float32; or None.
        num_classes: Number of classes or length of the label vectors; 0 = no labels.
        fingerprint: sha256 (hex) of the content, see :func:`fingerprint`.
        name: Name of data set and split, for records and messages.
        notice: What has to be said beside every figure measured on this data, or None.
        partners: The source draw that belongs to each item, or None.
    """

    images: Array
    labels: Array | None
    num_classes: int
    fingerprint: str
    name: str
    notice: str | None = None
    partners: Partners | None = None

    def __post_init__(self) -> None:
        kind = (self.images.dtype, self.images.ndim)
        if kind not in (
            (np.dtype(np.uint8), 4),
            (np.dtype(np.float32), 4),
            (np.dtype(np.float32), 2),
        ):
            raise ValueError(
                f"images must be uint8 or float32 (N, C, H, W), or float32 (N, D), but are "
                f"{self.images.dtype} {self.images.shape}"
            )
        if self.partners is not None and len(self.partners) != len(self.images):
            raise ValueError(f"{len(self.partners)} partners for {len(self.images)} images")
        if self.labels is None:
            return
        kind = (self.labels.dtype, self.labels.ndim)
        if kind not in ((np.dtype(np.int64), 1), (np.dtype(np.float32), 2)):
            raise ValueError(
                f"labels must be int64 (N,) or float32 (N, num_classes), but are "
                f"{self.labels.dtype} {self.labels.shape}"
            )
        if len(self.labels) != len(self.images):
            raise ValueError(f"{len(self.labels)} labels for {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(
        cls,
        images: Array,
        labels: Array | None,
        *,
        num_classes: int,
        name: str,
        notice: str | None = None,
        partners: Partners | None = None,
    ) -> "ImageArrays":
        """The arrays together with the fingerprint of their content."""
        identity = fingerprint(images, labels)
        if partners is not None:
            identity = combine_digests(identity, partners.fingerprint)
        return cls(images, labels, num_classes, identity, name, notice, partners)

    def select(self, indices: Array, *, name: str | None = None) -> "ImageArrays":
        """The items at these positions (or under this boolean mask), copied, in this order."""
        return ImageArrays.of(
            np.asarray(self.images)[indices],
            None if self.labels is None else self.labels[indices],
            num_classes=self.num_classes,
            name=self.name if name is None else name,
            notice=self.notice,
            partners=None if self.partners is None else self.partners.select(indices),
        )


class Dataset(Part, ABC):
    """Which samples there are. Everything declared here is known before a file is opened.

    Attributes:
        name: Short name, used in records.
        shape: Shape of one sample, (C, H, W) or (D,).
        channels: C, or D of points.
        resolution: H = W, or 1 for points.
        num_classes: Number of classes (length of label vectors); 0 = no labels.
        hflip: Whether training may show mirrored pictures.
        class_names: Names of the classes, if known.
        notice: What has to be said beside every figure measured on this data, or None.
        has_partners: Whether every picture comes with a source draw of its own.
    """

    class_names: tuple[str, ...] | None = None
    has_partners: bool = False

    def __init__(
        self,
        *,
        name: str,
        shape: tuple[int, ...],
        num_classes: int,
        hflip: bool = False,
        notice: str | None = None,
    ) -> None:
        self.name = name
        self.shape = shape
        self.channels = shape[0]
        self.resolution = shape[-1] if len(shape) == 3 else 1
        self.num_classes = num_classes
        self.hflip = hflip
        self.notice = notice
        self._train: ImageArrays | None = None

    @property
    def holds_points(self) -> bool:
        """Whether the items are points, not pictures."""
        return len(self.shape) == 1

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network for as many classes, and for pictures of this size."""
        yield from all_of(self._classes_of(parts), self._size_of(parts))

    def _classes_of(self, parts: Parts) -> Iterator[Unmet]:
        expected, name = parts.network.label_dim, type(self).__name__
        if expected > 0 and expected != self.num_classes:
            has = f"has {self.num_classes}" if self.num_classes else "has no labels"
            yield Unmet(
                "network.label_dim",
                f"the network expects {expected} classes, but {name} {has}.",
                f"Set network.label_dim={self.num_classes}.",
            )

    def _size_of(self, parts: Parts) -> Iterator[Unmet]:
        size = parts.network.img_resolution
        if size is not None and size != self.resolution:
            yield Unmet(
                "network.img_resolution",
                f"{size} does not fit {type(self).__name__}, whose resolution is "
                f"{self.resolution}.",
                f"Leave it out, or set network.img_resolution={self.resolution}.",
            )

    @abstractmethod
    def locate(self) -> None:
        """Check cheaply that the data can be read and is what was declared.

        Raises:
            UsageError: Naming the config key, what is missing, and how to get it.
        """

    @abstractmethod
    def _read(self) -> ImageArrays:
        """The training split."""

    def _read_heldout(self) -> ImageArrays | None:
        """The split that is never trained on, if there is one."""
        return None

    def train(self) -> ImageArrays:
        """The training split, checked against what was declared; read once per object.

        Raises:
            UsageError: If data is missing, damaged, or not what was declared.
        """
        if self._train is None:
            self._train = self._checked(self._read())
        return self._train

    def heldout(self) -> ImageArrays | None:
        """The split that is never trained on (a test set), or None; checked like ``train``."""
        arrays = self._read_heldout()
        return None if arrays is None else self._checked(arrays)

    def _require(self, key: str, declared: object, actual: Sequence[object]) -> None:
        """Refuse a declared value that the data set's nature does not allow."""
        if declared not in actual:
            allowed = " or ".join(str(value) for value in actual)
            raise UsageError(
                f"{self.name} has {key} {allowed}, but {declared} is declared.",
                key=f"dataset.{key}",
                remedy=f"Set dataset.{key}={actual[0]}.",
            )

    def _checked(self, arrays: ImageArrays) -> ImageArrays:
        found = arrays.images.shape[1:]
        if len(found) == 3:
            self._require("channels", self.channels, [found[0]])
            self._require("resolution", self.resolution, [found[-1]])
        if found != self.shape:
            raise UsageError(
                f"{arrays.name} holds samples of shape {found}, but {self.shape} is declared.",
                key="dataset.resolution" if len(found) == 3 else "dataset.dim",
            )
        if len(arrays) == 0:
            raise UsageError(f"{arrays.name} holds no sample.", key="dataset")
        self._check_labels(arrays)
        return arrays

    def _check_labels(self, arrays: ImageArrays) -> None:
        labels = arrays.labels
        if labels is None:
            self._require("num_classes", self.num_classes, [0])
            return
        if labels.ndim == 2:
            self._require("num_classes", self.num_classes, [labels.shape[1]])
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            raise UsageError(
                f"{arrays.name} has labels {low}..{high}, but num_classes={self.num_classes} is "
                "declared.",
                key="dataset.num_classes",
                remedy=f"Set dataset.num_classes={high + 1}." if low >= 0 else None,
            )
