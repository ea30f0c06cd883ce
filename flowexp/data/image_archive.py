"""Any square images: a ZIP in EDM's layout (FFHQ, AFHQv2, ImageNet, ...) or a folder.

Source: data format and choice of a subset are those of Karras et al. 2022 (arXiv 2206.00364).
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import __version__ as pillow_version

from flowexp.data.base import Dataset, ImageArrays
from flowexp.data.digests import Array, array_digest, combine_digests
from flowexp.data.image_decoding import VERSION, say_once
from flowexp.data.image_files import ImageFiles, open_images, prepare_command
from flowexp.data.locations import decode_once, find_images
from flowexp.errors import UsageError

__all__ = ["ImageArchive"]


class ImageArchive(Dataset):
    """Images of one size from a ZIP in EDM's layout or from a folder (recursive, links followed).

    They are decoded by :func:`~flowexp.data.image_decoding.decode_image` once into the cache, whose
    key is their content, and then memory-mapped. A damaged image is refused by its name.
    :mod:`flowexp.data.image_labels` describes labels in ``dataset.json`` and by class folders.

    Args:
        archive: ZIP or folder; a relative name is relative to the working directory or, if not
            found there, to ``$FLOWEXP_DATA``.
        channels: 1 for grey, 3 for colour.
        num_classes: Number of classes (length of label vectors); 0 without labels.
        use_labels: Read the labels of ``dataset.json``, or take those of class folders.
        class_names: Names of the classes 0, 1, ..., or None.
        remap_labels: Number the classes that have an image from 0, in the order of their labels;
            the run's manifest records which class has which label.
        test_archive: ZIP or folder with held-out images, or None.
        max_size: Train on this many of the images, or None for all; EDM's choice:
            ``RandomState(subset_seed)`` shuffles all positions, and the first are kept in order.
        subset_seed: Seed of that choice.
        in_memory: Keep the images in memory instead of mapping the cached file.

    Raises:
        UsageError: The values contradict each other.
    """

    how_to_hold_out = (
        "Name a ZIP of held-out images with dataset.test_archive=ZIP; flowexp prepare with "
        "heldout=0.1 makes one of a tenth of the pictures."
    )
    later_options: ClassVar[Mapping[str, object]] = {"remap_labels": False, "class_names": None}

    def __init__(
        self,
        *,
        archive: str,
        resolution: int,
        channels: int = 3,
        num_classes: int = 0,
        use_labels: bool = False,
        remap_labels: bool = False,
        hflip: bool = False,
        test_archive: str | None = None,
        max_size: int | None = None,
        subset_seed: int = 0,
        in_memory: bool = False,
        class_names: Sequence[str] | None = None,
        name: str = "image_archive",
        notice: str | None = None,
    ) -> None:
        super().__init__(
            name=name,
            shape=(channels, resolution, resolution),
            num_classes=num_classes,
            hflip=hflip,
            notice=notice,
        )
        self._require("channels", channels, [1, 3])
        if use_labels != (num_classes > 0):
            raise UsageError(
                f"{num_classes} contradicts use_labels={use_labels}.",
                key="dataset.num_classes",
                remedy="Set dataset.use_labels=false dataset.num_classes=0 to do without labels, "
                "else dataset.use_labels=true and dataset.num_classes to the number of classes.",
            )
        if remap_labels and not use_labels:
            raise UsageError(
                "there are no labels to number anew with use_labels=false.",
                key="dataset.remap_labels",
                remedy="Set dataset.use_labels=true and dataset.num_classes, or leave it out.",
            )
        if class_names is not None and len(class_names) != num_classes:
            raise UsageError(
                f"{len(class_names)} names for num_classes={num_classes}.",
                key="dataset.class_names",
                remedy="Give one name per class, or dataset.class_names=null.",
            )
        if max_size is not None and max_size < 1:
            raise UsageError(f"{max_size} is less than 1.", key="dataset.max_size")
        self.class_names = None if class_names is None else tuple(class_names)
        self.archive = archive
        self.test_archive = test_archive
        self.use_labels = use_labels
        self.remap_labels = remap_labels
        self.max_size = max_size
        self.subset_seed = subset_seed
        self.in_memory = in_memory
        self._opened: dict[str, ImageFiles] = {}

    def locate(self) -> None:
        self._open(self.archive, key="dataset.archive")
        if self.test_archive is not None:
            self._open(self.test_archive, key="dataset.test_archive")

    def _read(self) -> ImageArrays:
        files = self._open(self.archive, key="dataset.archive")
        keep = np.arange(len(files.names))
        if self.max_size is not None and self.max_size < len(keep):
            # The legacy generator is the definition of EDM's subset.
            np.random.RandomState(self.subset_seed % (1 << 31)).shuffle(keep)
            keep = np.sort(keep[: self.max_size])
        return self._decode(files, keep, split="train")

    def _read_heldout(self) -> ImageArrays | None:
        if self.test_archive is None:
            return None
        files = self._open(self.test_archive, key="dataset.test_archive")
        return self._decode(files, np.arange(len(files.names)), split="heldout")

    def _open(self, value: str, *, key: str) -> ImageFiles:
        if value not in self._opened:
            files = open_images(find_images(value, key=key), key=key)
            shape = files.shape(channels=self.channels)
            for part, actual in zip(("channels", "resolution"), shape, strict=False):
                declared = getattr(self, part)
                if declared != actual:
                    raise UsageError(
                        f"{declared} is declared, but {files.location} holds images with "
                        f"{part} {actual} ({files.names[0]}).",
                        key=f"dataset.{part}",
                        remedy=f"Set dataset.{part}={actual}, or make another archive: "
                        f"{prepare_command(files.location, size=self.resolution)}",
                    )
            if files.left_out is not None:
                say_once(files.left_out)
            self._opened[value] = files
        return self._opened[value]

    def _decode(self, files: ImageFiles, keep: npt.NDArray[np.int64], *, split: str) -> ImageArrays:
        labels = self._labels(files)[keep] if self.use_labels else None
        names = [files.names[i] for i in keep]
        # Decoders of lossy formats differ by single levels between versions.
        identity = f"{files.identity(names)} {self.shape} {VERSION} pillow {pillow_version}"
        images, digest = decode_once(
            f"pictures-{hashlib.sha256(identity.encode()).hexdigest()[:32]}",
            shape=(len(names), *self.shape),
            chunks=lambda: files.decode(names, self.shape),
            in_memory=self.in_memory,
            origin=str(files.location),
        )
        content = combine_digests(digest, None if labels is None else array_digest(labels))
        name = f"{self.name}/{split}"
        return ImageArrays(images, labels, self.num_classes, content, name, self.notice)

    def _labels(self, files: ImageFiles) -> Array:
        """The labels of a split, numbered anew if wished."""
        labels = files.labels()
        if not self.remap_labels:
            return labels
        known = self._labels_of_classes
        position = np.searchsorted(known, labels).clip(max=len(known) - 1)
        strange = np.flatnonzero(known[position] != labels)
        if len(strange):
            raise UsageError(
                f"{files.location}: {files.names[strange[0]]} has label {labels[strange[0]]}, "
                f"which no image of {self.archive} has.",
                key=files.key,
            )
        return position.astype(np.int64)

    @cached_property
    def _labels_of_classes(self) -> Array:
        """The label of every class: those of the training archive, in order."""
        labels = self._open(self.archive, key="dataset.archive").labels()
        if labels.ndim != 1:
            raise UsageError(
                f"{self.archive} has label vectors, which are not numbered.",
                key="dataset.remap_labels",
                remedy="Leave it out.",
            )
        known = np.unique(labels)
        self._require("num_classes", self.num_classes, [len(known)])
        return known

    def reading(self) -> dict[str, Any]:
        left_out = self._open(self.archive, key="dataset.archive").left_out
        remapped = self._labels_of_classes.tolist() if self.remap_labels else None
        return {"left_out": left_out, "labels_of_classes": remapped}

    def _label_remedy(self, present: Sequence[int]) -> str:
        return (
            f"Set dataset.remap_labels=true dataset.num_classes={len(present)} to number the "
            f"labels from 0, or dataset.num_classes={present[-1] + 1} to keep them."
        )
