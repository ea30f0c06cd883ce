"""Image data sets of torchvision, as torchvision reads and downloads them."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from flowexp.data.base import ImageArrays
from flowexp.data.image_decoding import plain_image
from flowexp.data.resized_images import WHITE, ResizedImages
from flowexp.data.torchvision_sets import known_set
from flowexp.errors import UsageError
from flowexp.files import expanded

__all__ = ["TorchvisionImages"]


class TorchvisionImages(ResizedImages):
    """A data set of ``torchvision.datasets``, with its test split held out where it has one.

    Args:
        name: The class in torchvision, one of :data:`~flowexp.data.torchvision_sets.SETS`.
        root: The folder that torchvision calls ``root``.
        download: Let torchvision fetch missing files into ``root``.
        resolution: Width and height, in pixels; images of another size are cropped and resized.

    Raises:
        UsageError: There is no such data set.
    """

    def __init__(
        self,
        *,
        name: str,
        root: str,
        resolution: int,
        channels: int,
        num_classes: int,
        download: bool = False,
        crop: str = "center",
        hflip: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            name=f"torchvision_{name}",
            resolution=resolution,
            channels=channels,
            num_classes=num_classes,
            crop=crop,
            hflip=hflip,
            class_names=class_names,
        )
        self.set = known_set(name)
        self.set_name = name
        self.root = root
        self.download = download
        self._opened: dict[str, Any] = {}

    def locate(self) -> None:
        for split in self.set.splits:
            self._open(split)

    def _open(self, split: str) -> Any:  # noqa: ANN401 - a class of torchvision
        if split in self._opened:
            return self._opened[split]
        from torchvision import datasets

        cls = getattr(datasets, self.set_name)
        given = dict(self.set.splits[split])
        if self.download:  # not every one can be
            given["download"] = True
        try:
            found = cls(str(expanded(self.root)), **given)
        except TypeError as error:
            raise UsageError(
                f"torchvision does not download {self.set_name}.",
                key="dataset.download",
                remedy="Put its files into dataset.root by other means.",
            ) from error
        except (RuntimeError, OSError, ImportError) as error:
            reason = " ".join(str(error).split()).removesuffix(".")
            raise UsageError(
                f"torchvision finds no {self.set_name} in {self.root} ({reason}).",
                key="dataset.root",
                remedy="Name its folder, or let torchvision download it: dataset.download=true.",
            ) from error
        self._opened[split] = found
        names = getattr(found, "classes", None)
        if self.class_names is None and names is not None and len(names) == self.num_classes:
            self.class_names = tuple(str(name) for name in names)
        return found

    def _read(self) -> ImageArrays:
        return self._arrays("train")

    def _read_heldout(self) -> ImageArrays | None:
        return self._arrays("heldout") if "heldout" in self.set.splits else None

    def _count(self, split: str) -> int:
        return len(self._open(split))

    def _item(self, split: str, index: int) -> tuple[Image.Image, int]:
        image, label = self._open(split)[index]
        return plain_image(image, channels=self.channels, background=WHITE), int(label)
