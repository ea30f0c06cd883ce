"""Fashion-MNIST (grey, 28 x 28, ten classes): the full set, and the part shipped with flowexp.

Source: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747. Padding 28 -> 32 with two rows of zeros on
every side is EDM's convention for the MNIST family.
"""

import gzip
import hashlib
import struct
import zlib
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np

from flowexp.data.base import ImageArrays, SplitDataset, evenly_spaced
from flowexp.data.digests import Array
from flowexp.data.locations import download_dir, fetch, first_existing, search_folders
from flowexp.errors import UsageError

__all__ = ["Fashion10k", "FashionMNIST", "parse_idx", "unpack"]


# sha256 of the unpacked files: gzip headers differ between distributors, the content does not.
CONTENT_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
PUBLISHER = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
DEBIAN_FOLDER = "/usr/share/datasets/fashion-mnist"
SUBFOLDERS = ("", "fashion-mnist", "FashionMNIST/raw")

_HELDOUT_PER_CLASS = 200
_UNSIGNED_BYTE = 8


class _Fashion(SplitDataset):
    class_names = (
        "T-shirt/top", "trouser", "pullover", "dress", "coat",
        "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip
    short_name: str

    def __init__(
        self, *, resolution: int = 28, channels: int = 1, num_classes: int = 10, hflip: bool = False
    ) -> None:
        super().__init__(
            name=self.short_name,
            shape=(channels, resolution, resolution),
            num_classes=num_classes,
            hflip=hflip,
        )
        self._require_declared(channels=[1], resolution=[28, 32], num_classes=[10])

    def _padded(self, images: Array, labels: Array, *, split: str) -> ImageArrays:
        margin = (self.resolution - images.shape[-1]) // 2
        if margin:
            images = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
        return self._arrays(np.array(images[:, None]), labels.astype(np.int64), split=split)


class Fashion10k(_Fashion):
    """10,000 real images shipped with flowexp: Fashion-MNIST's test archive, split in two.

    8,000 for training (800 of each class) and 2,000 held out (every fifth of each class in the
    order of the file). A number measured on it is not a number on Fashion-MNIST, whose training set
    is another one.

    Args:
        resolution: 28, or 32 to pad with zeros.
        hflip: Whether training mirrors images at random (all shoes point to the left).
    """

    short_name = "fashion10k"

    def locate(self) -> None:
        for stem in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
            if not _packaged(stem).is_file():
                raise _broken_package(stem, "is missing")

    def _split(self, split: str) -> ImageArrays:
        images = parse_idx(_packaged_content("t10k-images-idx3-ubyte"), axes=3)
        labels = parse_idx(_packaged_content("t10k-labels-idx1-ubyte"), axes=1)
        mask = evenly_spaced(labels, per_class=_HELDOUT_PER_CLASS) == (split == "heldout")
        return self._padded(images[mask], labels[mask], split=split)


class FashionMNIST(_Fashion):
    """Fashion-MNIST: 60,000 images for training, 10,000 held out.

    The four idx files, gzipped or plain, must be in ``root`` or, if that is None, in
    ``$FLOWEXP_DATA``, in the folder of Debian's package ``dataset-fashion-mnist`` or in the cache;
    the subfolders ``fashion-mnist`` and torchvision's ``FashionMNIST/raw`` are searched too.

    Args:
        root: Folder to look in instead of the usual ones.
        download: Fetch missing files from the publisher into the cache.
        resolution: 28, or 32 to pad with zeros.
    """

    short_name = "fashion_mnist"

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = False,
        resolution: int = 28,
        channels: int = 1,
        num_classes: int = 10,
        hflip: bool = False,
    ) -> None:
        super().__init__(
            resolution=resolution, channels=channels, num_classes=num_classes, hflip=hflip
        )
        self.root = root
        self.download = download

    def locate(self) -> None:
        for stem in CONTENT_SHA256:
            if self._find(stem) is None and not self.download:
                raise self._missing(stem)

    def _split(self, split: str) -> ImageArrays:
        prefix = "train" if split == "train" else "t10k"
        images = parse_idx(self._content(f"{prefix}-images-idx3-ubyte"), axes=3)
        labels = parse_idx(self._content(f"{prefix}-labels-idx1-ubyte"), axes=1)
        return self._padded(images, labels, split=split)

    def _folders(self) -> list[Path]:
        return search_folders(self.root, well_known=[DEBIAN_FOLDER])

    def _find(self, stem: str) -> Path | None:
        names = [f"{sub}/{stem}{end}".lstrip("/") for sub in SUBFOLDERS for end in (".gz", "")]
        return first_existing(self._folders(), names)

    def _content(self, stem: str) -> bytes:
        file = self._find(stem)
        if file is None and self.download:
            target = download_dir() / "fashion-mnist" / f"{stem}.gz"
            file = fetch(f"{PUBLISHER}/{stem}.gz", target, verify=partial(_verified, stem=stem))
        if file is None:
            raise self._missing(stem)
        return _verified(file, stem)

    def _missing(self, stem: str) -> UsageError:
        folders = ", ".join(str(folder) for folder in self._folders())
        return UsageError(
            f"Fashion-MNIST's {stem}.gz was not found in any of: {folders}.",
            key="dataset.root",
            remedy="Set dataset.root or FLOWEXP_DATA to its folder, install Debian's package "
            "dataset-fashion-mnist, or set dataset.download=true.",
        )


def _verified(file: Path, stem: str) -> bytes:
    """The unpacked content of a file, if it is the publisher's."""
    try:
        content = unpack(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{file} cannot be read: {error}.", key="dataset.root", remedy="Replace the file."
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != CONTENT_SHA256[stem]:
        raise UsageError(
            f"{file} is not Fashion-MNIST's {stem} (unpacked sha256 {digest}, "
            f"expected {CONTENT_SHA256[stem]}).",
            key="dataset.root",
            remedy="Replace the file.",
        )
    return content


def _packaged(stem: str) -> resources.abc.Traversable:
    return resources.files("flowexp.data").joinpath("fashion10k", f"{stem}.gz")


def _packaged_content(stem: str) -> bytes:
    try:
        content = unpack(_packaged(stem).read_bytes())
    except (OSError, ValueError) as error:
        raise _broken_package(stem, f"cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != CONTENT_SHA256[stem]:
        raise _broken_package(stem, "has the wrong content")
    return content


def _broken_package(stem: str, what: str) -> UsageError:
    return UsageError(
        f"the file {stem}.gz shipped with flowexp {what}.",
        key="dataset",
        remedy="Install flowexp again.",
    )


def unpack(content: bytes) -> bytes:
    """The idx bytes of a file that may be gzipped; ``ValueError`` if it is damaged."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"the gzip stream is damaged or ends early ({error})") from error


def parse_idx(content: bytes, *, axes: int) -> Array:
    """The array in an unpacked file of the MNIST family's idx format, uint8, read-only.

    Two zero bytes, a type code (8 = unsigned byte), the number of axes, the length of each axis as
    a big-endian 32-bit integer, then the values in C order.

    Raises:
        ValueError: If the magic number is not that of so many axes, or the length is wrong.
    """
    wanted = (_UNSIGNED_BYTE << 8) | axes
    head = 4 + 4 * axes
    magic = int.from_bytes(content[:4], "big")
    if len(content) < head or magic != wanted:
        raise ValueError(f"the magic number is {magic}; expected {wanted}")
    shape = struct.unpack(f">{axes}I", content[4:head])
    expected = head + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise ValueError(f"{len(content)} bytes; expected {expected} by its header {shape}")
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape)
