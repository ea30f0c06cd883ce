"""Image data sets of the Hugging Face library ``datasets``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from flowexp.data.base import ImageArrays
from flowexp.data.huggingface_splits import open_split, require_datasets
from flowexp.data.image_decoding import decode_image
from flowexp.data.resized_images import WHITE, ResizedImages
from flowexp.errors import UsageError

__all__ = ["HuggingFaceImages"]


class HuggingFaceImages(ResizedImages):
    """A data set with a column of images, decoded like flowexp's own image files.

    Args:
        path: A folder that ``save_to_disk`` wrote, or one of parquet files or class folders; with
            ``download`` also a name on the hub.
        split: The split to train on.
        heldout_split: The split that is held out, or None.
        image_column: The column of images.
        label_column: The column of classes, or None to ignore them.
        download: Let the library download a data set from the hub.
        resolution: Width and height, in pixels; images of another size are cropped and resized.

    Raises:
        UsageError: The number of classes contradicts ``label_column``.
    """

    how_to_hold_out = "Name a split of held-out images with dataset.heldout_split=NAME."

    def __init__(
        self,
        *,
        path: str,
        resolution: int,
        num_classes: int,
        channels: int = 3,
        split: str = "train",
        heldout_split: str | None = None,
        image_column: str = "image",
        label_column: str | None = "label",
        download: bool = False,
        crop: str = "center",
        hflip: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            name=f"huggingface_{path.rstrip('/').rpartition('/')[2]}",
            resolution=resolution,
            channels=channels,
            num_classes=num_classes,
            crop=crop,
            hflip=hflip,
            class_names=class_names,
        )
        if (label_column is None) != (num_classes == 0):
            raise UsageError(
                f"{num_classes} contradicts label_column={label_column}.",
                key="dataset.num_classes",
                remedy="Set dataset.label_column=null dataset.num_classes=0 to ignore the labels.",
            )
        self.path = path
        self.splits = {"train": split, "heldout": heldout_split}
        self.image_column = image_column
        self.label_column = label_column
        self.download = download
        self._opened: dict[str, Any] = {}

    def locate(self) -> None:
        for split in self.splits.values():
            if split is not None:
                self._open(split)

    def _open(self, split: str) -> Any:  # noqa: ANN401 - a Dataset of the library
        if split not in self._opened:
            found = open_split(self.path, split, download=self.download)
            for key in ("image_column", "label_column"):
                column = getattr(self, key)
                if column is not None and column not in found.features:
                    raise UsageError(
                        f"{self.path} has no column {column!r}.",
                        key=f"dataset.{key}",
                        remedy=f"It has {', '.join(found.features)}.",
                    )
            undecoded = require_datasets().Image(decode=False)
            self._opened[split] = found.cast_column(self.image_column, undecoded)
        return self._opened[split]

    def _read(self) -> ImageArrays:
        return self._arrays("train")

    def _read_heldout(self) -> ImageArrays | None:
        return None if self.splits["heldout"] is None else self._arrays("heldout")

    def _count(self, split: str) -> int:
        return len(self._open(str(self.splits[split])))

    def _item(self, split: str, index: int) -> tuple[Image.Image, int]:
        row = self._open(str(self.splits[split]))[index]
        file = row[self.image_column]
        content = file["bytes"] if file["bytes"] is not None else Path(file["path"]).read_bytes()
        label = 0 if self.label_column is None else int(row[self.label_column])
        return decode_image(content, channels=self.channels, background=WHITE), label
