"""Image files of a folder or a ZIP, with the labels of EDM's ``dataset.json``.

EDM's layout: ``00000/img00000000.png`` ... and ``dataset.json``, whose format, with that of class
folders, stands in :mod:`flowexp.data.image_labels`. Images are taken in the order of their names,
and labels are looked up by name, never by their order in the JSON file. What counts as an image and
how it is decoded says :mod:`flowexp.data.image_decoding`.
"""

import hashlib
import os
import posixpath
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flowexp.config.override_text import command
from flowexp.data.digests import Array
from flowexp.data.image_decoding import (
    SUFFIXES,
    NotDecodedError,
    decode_image,
    is_image,
    planes,
    reason,
    what_is_left_out,
)
from flowexp.data.image_labels import (
    LABEL_FILE,
    LabelsError,
    LabelsOfImages,
    class_folders,
    json_labels,
    looked_up,
)
from flowexp.data.locations import content_digest
from flowexp.errors import UsageError
from flowexp.progress import counted
from flowexp.threads import workers

__all__ = ["ImageFiles", "open_images", "prepare_command"]

_CHUNK = 2048
_THREADS = 8
_BROKEN = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError,
           NotImplementedError)  # fmt: skip
_SIZE = 64
_UNLABELLED = "dataset.use_labels=false dataset.num_classes=0"


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
        self._label_file = next((name for name in names if looked_up(name) == LABEL_FILE), None)
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

    @abstractmethod
    def state(self) -> str:
        """Digest (hex) of names, sizes and times of change, without reading the files."""

    def shape(self, *, channels: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of the first image; for ``channels`` see :func:`decode_image`."""
        depth, height, width = self._decoded(self.names[0], channels).shape
        return depth, height, width

    def decode(self, names: Sequence[str], shape: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """Pieces (n, C, H, W), uint8, of these images in this order, decoded by several threads.

        An image that is damaged or of another shape raises ``UsageError``.
        """
        unit = f"images of {self.location.name}"
        with (
            ThreadPoolExecutor(workers(_THREADS)) as pool,
            counted("decoded", total=len(names), unit=unit) as task,
        ):
            for start in range(0, len(names), _CHUNK):
                part = names[start : start + _CHUNK]
                piece = np.empty((len(part), *shape), dtype=np.uint8)
                for _ in pool.map(self._decode_into, piece, part):
                    task.advance()
                yield piece

    def _decode_into(self, target: npt.NDArray[np.uint8], name: str) -> None:
        pixels = self._decoded(name, target.shape[0])
        if pixels.shape != target.shape:
            what = f"is {_size(pixels.shape)}, but {self.names[0]} is {_size(target.shape)}"
            raise self._refused(name, what, size=target.shape[-1])
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
        return planes(image)

    def labels(self) -> Array:
        """Labels of ``names``: classes (N,), int64, or vectors (N, L), float32.

        Raises ``UsageError`` unless there is one label for every image, all of one kind: integers
        from 0 or finite vectors.
        """
        if self.labelled is None:
            raise UsageError(
                f"{self.location} has no labels: no {LABEL_FILE} with labels and no class folders.",
                key="dataset.use_labels",
                remedy=f"Set {_UNLABELLED}.",
            )
        return self.labelled.values

    @cached_property
    def labelled(self) -> LabelsOfImages | None:
        """The labels of ``names`` and the names of their classes; None if there are none.

        Raises:
            UsageError: The labels are damaged, or are not those of the images.
        """
        if self._label_file is None:
            return class_folders(self.names)
        try:
            return json_labels(self.read(self._label_file), self.names)
        except LabelsError as error:
            raise self._mislabelled(str(error), incomplete=error.incomplete) from error
        except (*_BROKEN, KeyError, TypeError) as error:
            raise self._mislabelled(f"is damaged ({reason(error)})") from error

    def _mislabelled(self, what: str, *, incomplete: bool = False) -> UsageError:
        remedy = "Fix the file" if incomplete else "Give every image a class from 0 or a vector"
        return UsageError(
            f"{self.location}: {LABEL_FILE} {what}.",
            key=self.key,
            remedy=f"{remedy}, or set {_UNLABELLED}.",
        )

    def _damaged(self, name: str, error: Exception) -> UsageError:
        return self._refused(name, f"is damaged ({reason(error)})")

    def _refused(self, name: str, what: str, *, size: int = _SIZE) -> UsageError:
        return UsageError(
            f"{self.location}: {name} {what}.",
            key=self.key,
            remedy="All images must be intact, square, of one size and all grey or all colour. "
            f"To prepare them: {prepare_command(self.location, size=size)}",
        )


def prepare_command(location: Path, *, size: int = _SIZE) -> str:
    """The command that prepares a data set of square images of one size from a folder or a ZIP."""
    stem = location.resolve().name.removesuffix(".zip")
    places = {"in": str(location), "out": f"{stem}-{size}.zip"}
    return command("prepare", trust=(), **places, resolution=size)


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
        read = [name for name in names if is_image(name) or looked_up(name) == LABEL_FILE]
        counts = Counter(looked_up(name).lower() for name in read)
        twice = [name for name in read if counts[looked_up(name).lower()] > 1]
        if twice:
            first = looked_up(twice[0]).lower()
            same = [name for name in twice if looked_up(name).lower() == first]
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

    def state(self) -> str:
        return _state_of([self.location])


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

    def state(self) -> str:
        return _digest_of(self.names, _state_of([self.location / name for name in self.names]))


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


def _state_of(files: Sequence[Path]) -> str:
    stats = [file.stat() for file in files]
    return _digest_of([f"{s.st_size} {s.st_mtime_ns}" for s in stats], "")


def _digest_of(names: Iterable[str], contents: str) -> str:
    return hashlib.sha256("\n".join([*names, contents]).encode()).hexdigest()


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[2]} with {shape[0]} channel{'s' if shape[0] > 1 else ''}"
