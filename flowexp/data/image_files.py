"""Image files of a folder or a ZIP, with the labels of EDM's ``dataset.json``.

EDM's layout: ``00000/img00000000.png`` ... and ``dataset.json`` = {"labels": [[name, label], ...]}
or {"labels": null}; a label is a class or a vector. Images are taken in the order of their names,
and labels are looked up by name, never by their order in the JSON file. What counts as an image and
how it is decoded says :mod:`flowexp.data.image_decoding`.
"""

import hashlib
import json
import math
import os
import posixpath
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowexp.data.digests import Array
from flowexp.data.image_decoding import (
    SUFFIXES,
    NotDecodedError,
    decode_image,
    is_image,
    reason,
    what_is_left_out,
)
from flowexp.data.locations import content_digest
from flowexp.errors import UsageError
from flowexp.threads import workers

__all__ = ["ImageFiles", "open_images"]

_LABEL_FILE = "dataset.json"
_CHUNK = 2048
_THREADS = 8
_BROKEN = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError,
           NotImplementedError)  # fmt: skip
_MOST_CLASS = np.iinfo(np.int64).max
_SHOWN_LABEL = 60


def open_images(location: Path, *, key: str) -> "ImageFiles":
    """The images of a folder or a ZIP; a ``UsageError`` at ``key`` if it cannot be read."""
    return (_FolderImages if location.is_dir() else _ZippedImages)(location, key=key)


class ImageFiles(ABC):
    """Named image files of one size.

    Attributes:
        location: The ZIP or the folder.
        names: Names of the images, sorted, with ``/`` between folders.
        left_out: What is said of the other files, or None.
        key: Config key that named the location, for messages.
    """

    def __init__(
        self, location: Path, names: Sequence[str], *, key: str, lost: Collection[str] = ()
    ) -> None:
        self.location = location
        self.key = key
        self.names = sorted(name for name in names if is_image(name) and name not in lost)
        self._label_file = next((name for name in names if _plain(name) == _LABEL_FILE), None)
        known = () if self._label_file is None else (self._label_file,)
        self.left_out = what_is_left_out(location, names, kept=self.names, known=known, lost=lost)
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
        """Digest (hex) of the names and contents of these files."""

    def shape(self, *, channels: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of the first image; for ``channels`` see :func:`decode_image`."""
        depth, height, width = self._decoded(self.names[0], channels).shape
        return depth, height, width

    def decode(self, names: Sequence[str], shape: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """Pieces (n, C, H, W), uint8, of these images in this order, decoded by several threads.

        An image that is damaged or of another shape raises ``UsageError``.
        """
        with ThreadPoolExecutor(workers(_THREADS)) as pool:
            for start in range(0, len(names), _CHUNK):
                part = names[start : start + _CHUNK]
                piece = np.empty((len(part), *shape), dtype=np.uint8)
                for _ in pool.map(self._decode_into, piece, part):
                    pass
                yield piece

    def _decode_into(self, target: npt.NDArray[np.uint8], name: str) -> None:
        pixels = self._decoded(name, target.shape[0])
        if pixels.shape != target.shape:
            raise self._refused(
                name, f"is {_size(pixels.shape)}, but {self.names[0]} is {_size(target.shape)}"
            )
        target[...] = pixels

    def _decoded(self, name: str, channels: int | None) -> npt.NDArray[np.uint8]:
        """The pixels of a square image, (C, H, W)."""
        try:
            image = decode_image(self.read(name), channels=channels)
        except NotDecodedError as error:
            raise self._refused(name, str(error)) from error
        except _BROKEN as error:
            raise self._damaged(name, error) from error
        if image.width != image.height:
            raise self._refused(name, f"is {image.width}x{image.height}, not square")
        pixels = np.asarray(image)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def labels(self) -> Array:
        """Labels of ``names``: classes (N,), int64, or vectors (N, L), float32.

        Raises ``UsageError`` unless there is one label for every image, all of one kind: integers
        from 0 or finite vectors.
        """
        by_name = self._label_table()
        names = [_plain(name) for name in self.names]
        counts = f"{len(by_name)} labels for {len(names)} images"
        found = f"{self.location}: {_LABEL_FILE} has {counts}"
        missing = next((name for name in names if name not in by_name), None)
        if missing is not None:
            raise UsageError(
                f"{found}, and none for {missing}.",
                key=self.key,
                remedy="Fix the file, or set dataset.use_labels=false dataset.num_classes=0.",
            )
        if extra := set(by_name) - set(names):
            raise UsageError(
                f"{found}; {min(extra)} has a label but is missing.",
                key=self.key,
                remedy="The archive is incomplete; create it again.",
            )
        for name in names:
            if not _is_label(label := by_name[name]):
                shown = json.dumps(label)[:_SHOWN_LABEL]
                raise self._refused(
                    _LABEL_FILE,
                    f"gives {name} the class {shown}, but classes count from 0"
                    if type(label) is int
                    else "holds labels that are neither integers nor vectors of finite numbers: "
                    f"{shown} for {name}",
                )
        try:
            table = np.array([by_name[name] for name in names])
        except ValueError as error:
            raise self._refused(_LABEL_FILE, "mixes labels of several kinds") from error
        return table.astype(np.int64 if table.ndim == 1 else np.float32)

    def _label_table(self) -> dict[str, Any]:
        if self._label_file is not None:
            try:
                content = json.loads(self.read(self._label_file), object_pairs_hook=_once)
                table = content["labels"]
                if table is not None:
                    pairs = table.items() if isinstance(table, dict) else table
                    return _once((_plain(str(name)), label) for name, label in pairs)
            except (*_BROKEN, KeyError, TypeError) as error:
                raise self._damaged(_LABEL_FILE, error) from error
        raise UsageError(
            f"{self.location} has no labels (no {_LABEL_FILE}, or its labels are null).",
            key="dataset.use_labels",
            remedy="Set dataset.use_labels=false dataset.num_classes=0.",
        )

    def _damaged(self, name: str, error: Exception) -> UsageError:
        return self._refused(name, f"is damaged ({reason(error)})")

    def _refused(self, name: str, what: str) -> UsageError:
        return UsageError(
            f"{self.location}: {name} {what}.",
            key=self.key,
            remedy="Give every image a class from 0 or a vector, or set dataset.use_labels=false "
            "dataset.num_classes=0."
            if name == _LABEL_FILE
            else "All images must be intact, square, of one size and all grey or all colour.",
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
        names = [name for name in self._archive.namelist() if not name.endswith("/")]
        # Which of two files with one name is read, or survives unpacking, is chance.
        read = [name for name in names if is_image(name) or _plain(name) == _LABEL_FILE]
        counts = Counter(_plain(name).lower() for name in read)
        twice = [name for name in read if counts[_plain(name).lower()] > 1]
        if twice:
            same = [name for name in twice if _plain(name).lower() == _plain(twice[0]).lower()]
            raise UsageError(
                f"{location} holds {' and '.join(sorted(set(same)))} {len(same)} times; "
                f"{len(twice)} of its {len(names)} files are not the only ones of their name.",
                key=key,
                remedy="Create it again with other names, which differ not in case alone.",
            )
        super().__init__(location, names, key=key)

    def read(self, name: str) -> bytes:
        return self._archive.read(name)

    def identity(self, names: Sequence[str]) -> str:
        return _digest_of(names, content_digest([self.location]))


class _FolderImages(ImageFiles):
    def __init__(self, location: Path, *, key: str) -> None:
        try:
            names = sorted(_files_below(location))
            lost = {name for name in names if not (location / name).is_file()}
        except OSError as error:
            raise UsageError(
                f"{error.filename or location} cannot be read ({error.strerror or error}).", key=key
            ) from error
        super().__init__(location, names, key=key, lost=lost)

    def read(self, name: str) -> bytes:
        return (self.location / name).read_bytes()

    def identity(self, names: Sequence[str]) -> str:
        return _digest_of(names, content_digest([self.location / name for name in names]))


def _files_below(root: Path) -> Iterator[str]:
    """The names of all files below a folder, links followed, but none back to a folder above."""

    def fail(error: OSError) -> None:
        raise error

    open_folders: dict[str, tuple[tuple[int, int], ...]] = {}
    for folder, folders, files in os.walk(root, followlinks=True, onerror=fail):
        stat = os.stat(folder)
        above = open_folders.get(os.path.dirname(folder), ())
        own = (stat.st_dev, stat.st_ino)
        if own in above:
            folders.clear()
            continue
        open_folders[folder] = (*above, own)
        inside = Path(folder).relative_to(root).as_posix()
        yield from (posixpath.normpath(posixpath.join(inside, name)) for name in files)


def _digest_of(names: Iterable[str], contents: str) -> str:
    return hashlib.sha256("\n".join([*names, contents]).encode()).hexdigest()


def _plain(name: str) -> str:
    """A name as it is looked up: without ``./``, with ``/`` between its folders."""
    return posixpath.normpath(name.replace("\\", "/")).lstrip("/")


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Names and values as a mapping; ``ValueError`` if a name stands there twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it lists {name} twice")
        found[name] = value
    return found


def _is_label(label: object) -> bool:
    """Whether a label is a class index or a vector."""
    if isinstance(label, list):
        return bool(label) and all(type(x) in (int, float) and math.isfinite(x) for x in label)
    return type(label) is int and 0 <= label <= _MOST_CLASS


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[2]} with {shape[0]} channel{'s' if shape[0] > 1 else ''}"
