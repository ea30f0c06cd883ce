"""Any square images: a ZIP in EDM's layout (FFHQ, AFHQv2, ImageNet, ...) or a folder.

EDM's layout: ``00000/img00000000.png`` ... and ``dataset.json`` = {"labels": [[name, label], ...]}
or {"labels": null}; a label is a class or a vector. Images are taken in the order of their names,
and labels are looked up by name, never by their order in the JSON file.

Source: data format and choice of a subset are those of Karras et al. 2022 (arXiv 2206.00364).
"""

import hashlib
import io
import json
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL import __version__ as pillow_version

from flowexp.data.base import Dataset, ImageArrays
from flowexp.data.digests import Array, array_digest, combine_digests
from flowexp.data.locations import data_dir, decode_once
from flowexp.errors import UsageError
from flowexp.files import expanded

__all__ = ["ImageArchive", "ImageFiles"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_LABEL_FILE = "dataset.json"
_CHANNELS = {"L": 1, "RGB": 3}
_CHUNK = 2048
_THREADS = 8
_BROKEN = (OSError, EOFError, ValueError, SyntaxError, zipfile.BadZipFile, zlib.error,
           RuntimeError, Image.DecompressionBombError, UnidentifiedImageError)  # fmt: skip


class ImageFiles(ABC):
    """Named image files of one size.

    Attributes:
        location: The ZIP or the folder.
        names: Names of the images, sorted, with ``/`` between folders.
        key: Config key that named the location, for messages.
    """

    def __init__(self, location: Path, names: Sequence[str], *, key: str) -> None:
        self.location = location
        self.key = key
        self.names = sorted(name for name in names if _is_image(name))
        self._has_labels = _LABEL_FILE in names
        if not self.names:
            raise UsageError(
                f"{location} holds no image ({', '.join(SUFFIXES)}).",
                key=key,
                remedy="Use a ZIP in EDM's layout or a folder of images.",
            )

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Bytes of a file."""

    @abstractmethod
    def identity(self, names: Sequence[str]) -> str:
        """Digest (hex) of the metadata of these files in the file system or archive."""

    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the first image, from its header."""
        with self._opened(self.names[0]) as image:
            return self._shape_of(image, self.names[0])

    def decode(self, names: Sequence[str], shape: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """Pieces (n, C, H, W), uint8, of these images in this order, decoded by several threads.

        An image that is damaged or of another shape raises ``UsageError``.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(names), _CHUNK):
                part = names[start : start + _CHUNK]
                piece = np.empty((len(part), *shape), dtype=np.uint8)
                for _ in pool.map(self._decode_into, piece, part):
                    pass
                yield piece

    def _decode_into(self, target: npt.NDArray[np.uint8], name: str) -> None:
        with self._opened(name) as image:
            found = self._shape_of(image, name)
            if found != target.shape:
                raise self._refused(
                    name, f"is {_size(found)}, but {self.names[0]} is {_size(target.shape)}"
                )
            pixels = np.asarray(image)
        target[...] = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    @contextmanager
    def _opened(self, name: str) -> Iterator[Image.Image]:
        """An image; whatever reading it raises is the message that it is damaged."""
        try:
            with Image.open(io.BytesIO(self.read(name))) as image:
                yield image
        except UsageError:
            raise
        except _BROKEN as error:
            raise self._damaged(name, error) from error

    def _shape_of(self, image: Image.Image, name: str) -> tuple[int, int, int]:
        if image.mode not in _CHANNELS:
            raise self._refused(name, f"has mode {image.mode}, neither grey (L) nor colour (RGB)")
        if image.width != image.height:
            raise self._refused(name, f"is {image.width}x{image.height}, not square")
        return _CHANNELS[image.mode], image.height, image.width

    def labels(self) -> Array:
        """Labels of ``names``: classes (N,), int64, or vectors (N, L), float32.

        Raises ``UsageError`` unless there is one label for every image, all of one kind.
        """
        by_name = self._label_table()
        counts = f"{len(by_name)} labels for {len(self.names)} images"
        found = f"{self.location}: {_LABEL_FILE} has {counts}"
        missing = next((name for name in self.names if name not in by_name), None)
        if missing is not None:
            raise UsageError(
                f"{found}, and none for {missing}.",
                key=self.key,
                remedy="Fix the file, or set dataset.use_labels=false dataset.num_classes=0.",
            )
        if extra := set(by_name) - set(self.names):
            raise UsageError(
                f"{found}; {min(extra)} has a label but is missing.",
                key=self.key,
                remedy="The archive is incomplete; create it again.",
            )
        try:
            table = np.array([by_name[name] for name in self.names])
        except ValueError as error:
            raise self._refused(_LABEL_FILE, "mixes labels of several kinds") from error
        if table.ndim == 1 and np.issubdtype(table.dtype, np.integer):
            return table.astype(np.int64)
        if table.ndim == 2 and np.issubdtype(table.dtype, np.number):
            return table.astype(np.float32)
        raise self._refused(_LABEL_FILE, "holds labels that are neither integers nor vectors")

    def _label_table(self) -> dict[str, Any]:
        if self._has_labels:
            try:
                table = json.loads(self.read(_LABEL_FILE))["labels"]
                if table is not None:
                    pairs = table.items() if isinstance(table, dict) else table
                    return {str(name).replace("\\", "/"): label for name, label in pairs}
            except (*_BROKEN, KeyError, TypeError) as error:
                raise self._damaged(_LABEL_FILE, error) from error
        raise UsageError(
            f"{self.location} has no labels (no {_LABEL_FILE}, or its labels are null).",
            key="dataset.use_labels",
            remedy="Set dataset.use_labels=false dataset.num_classes=0.",
        )

    def _damaged(self, name: str, error: Exception) -> UsageError:
        return self._refused(name, f"is damaged ({error})")

    def _refused(self, name: str, what: str) -> UsageError:
        return UsageError(
            f"{self.location}: {name} {what}.",
            key=self.key,
            remedy="All images must be intact, square, of one size and all grey or all colour.",
        )


class _ZippedImages(ImageFiles):
    def __init__(self, location: Path, *, key: str) -> None:
        try:
            self._archive = zipfile.ZipFile(location)
        except (OSError, zipfile.BadZipFile) as error:
            raise UsageError(
                f"{location} is not a readable ZIP archive ({error}).",
                key=key,
                remedy="Download or create it again.",
            ) from error
        super().__init__(location, self._archive.namelist(), key=key)

    def read(self, name: str) -> bytes:
        return self._archive.read(name)

    def identity(self, names: Sequence[str]) -> str:
        stat = self.location.stat()
        digest = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
        for name in names:
            info = self._archive.getinfo(name)
            digest.update(f"{name} {info.CRC} {info.file_size} {info.header_offset}\n".encode())
        return digest.hexdigest()


class _FolderImages(ImageFiles):
    def __init__(self, location: Path, *, key: str) -> None:
        files = (file for file in location.rglob("*") if file.is_file())
        super().__init__(location, [f.relative_to(location).as_posix() for f in files], key=key)

    def read(self, name: str) -> bytes:
        return (self.location / name).read_bytes()

    def identity(self, names: Sequence[str]) -> str:
        digest = hashlib.sha256(str(self.location.resolve()).encode())
        for name in names:
            stat = (self.location / name).stat()
            digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def _is_image(name: str) -> bool:
    # File managers leave thumbnails in folders such as __MACOSX and in hidden files.
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return not hidden and name.lower().endswith(SUFFIXES)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[2]} with {shape[0]} channel{'s' if shape[0] > 1 else ''}"


class ImageArchive(Dataset):
    """Images of one size from a ZIP in EDM's layout or from a folder (png, jpg, webp; recursive).

    They are decoded once into the cache and then memory-mapped.

    Args:
        archive: ZIP or folder; a relative name is relative to the working directory or, if not
            found there, to ``$FLOWEXP_DATA``.
        channels: 1 for grey, 3 for colour.
        num_classes: Number of classes (length of label vectors); 0 without labels.
        use_labels: Read the labels of ``dataset.json``.
        test_archive: ZIP or folder with held-out images, or None.
        max_size: Train on this many of the images, or None for all; EDM's choice:
            ``RandomState(subset_seed)`` shuffles all positions, and the first are kept in order.
        subset_seed: Seed of that choice.
        in_memory: Keep the images in memory instead of mapping the cached file.

    Raises:
        UsageError: The values contradict each other.
    """

    def __init__(
        self,
        *,
        archive: str,
        resolution: int,
        channels: int = 3,
        num_classes: int = 0,
        use_labels: bool = False,
        hflip: bool = False,
        test_archive: str | None = None,
        max_size: int | None = None,
        subset_seed: int = 0,
        in_memory: bool = False,
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
                remedy="Set dataset.num_classes=0 without labels, else to the number of classes.",
            )
        if max_size is not None and max_size < 1:
            raise UsageError(f"{max_size} is less than 1.", key="dataset.max_size")
        self.archive = archive
        self.test_archive = test_archive
        self.use_labels = use_labels
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
            location = _find(value, key=key)
            opened = _FolderImages if location.is_dir() else _ZippedImages
            files = opened(location, key=key)
            for part, actual in zip(("channels", "resolution"), files.shape(), strict=False):
                declared = getattr(self, part)
                if declared != actual:
                    raise UsageError(
                        f"{declared} is declared, but {files.location} holds images with "
                        f"{part} {actual} ({files.names[0]}).",
                        key=f"dataset.{part}",
                        remedy=f"Set dataset.{part}={actual}, or give another archive.",
                    )
            self._opened[value] = files
        return self._opened[value]

    def _decode(self, files: ImageFiles, keep: npt.NDArray[np.int64], *, split: str) -> ImageArrays:
        labels: Array | None = files.labels()[keep] if self.use_labels else None
        names = [files.names[i] for i in keep]
        # Decoders of lossy formats differ by single levels between versions.
        identity = f"{files.identity(names)} {self.shape} pillow {pillow_version}"
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


def _find(value: str, *, key: str) -> Path:
    given = expanded(value)
    own = data_dir()
    places = [given] if own is None or given.is_absolute() else [given, own / given]
    for place in places:
        if place.exists():
            return place
    tried = " nor ".join(str(place.absolute()) for place in places)
    raise UsageError(
        f"{value} was not found: there is no {tried}.",
        key=key,
        remedy=f"Set {key} to a ZIP in EDM's layout or a folder of images, or FLOWEXP_DATA to "
        "its parent folder.",
    )
