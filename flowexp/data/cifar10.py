"""CIFAR-10 (colour, 32 x 32, ten classes) from the publisher's archive, lossless.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images". The archive holds
pickles; their digests must be the publisher's, and reading them cannot run code.
"""

import hashlib
import io
import pickle
import tarfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flowexp.data.base import ImageArrays, SplitDataset
from flowexp.data.digests import Array, array_digest, combine_digests
from flowexp.data.locations import decode_once, download_dir, fetch, first_existing, search_folders
from flowexp.errors import UsageError
from flowexp.files import expanded, file_sha256

__all__ = ["CIFAR10", "load_plain"]


ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
MEMBER_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
PER_MEMBER = 10_000

_SPLITS = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "heldout": ("test_batch",)}


class CIFAR10(SplitDataset):
    """CIFAR-10: 50,000 images for training, 10,000 held out.

    ``cifar-10-python.tar.gz``, or its unpacked folder ``cifar-10-batches-py``, must be in ``root``
    or, if that is None, in ``$FLOWEXP_DATA`` or the cache. Arguments not listed, but for
    ``hflip``, only declare what is fixed.

    Args:
        root: Folder to look in, or the archive itself, instead of the usual folders.
        download: Fetch a missing archive from the publisher into the cache.
        in_memory: Keep the images in memory (150 MB) instead of mapping the cached file.
    """

    class_names = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = False,
        in_memory: bool = True,
        resolution: int = 32,
        channels: int = 3,
        num_classes: int = 10,
        hflip: bool = True,
    ) -> None:
        super().__init__(
            name="cifar10",
            shape=(channels, resolution, resolution),
            num_classes=num_classes,
            hflip=hflip,
        )
        self._require_declared(channels=[3], resolution=[32], num_classes=[10])
        self.root = root
        self.download = download
        self.in_memory = in_memory
        self._verified: Path | None = None

    def locate(self) -> None:
        if self._find() is None and not self.download:
            raise self._missing()

    def _split(self, split: str) -> ImageArrays:
        source = self._find()
        if source is None and self.download:
            source = fetch(URL, download_dir() / ARCHIVE, verify=_verify_archive)
            self._verified = source
        if source is None:
            raise self._missing()
        if source.is_file() and source != self._verified:
            _verify_archive(source)
            self._verified = source
        members = cache(lambda: _members(source, split))
        key = f"cifar10-{ARCHIVE_SHA256[:16]}-{split}"
        count = PER_MEMBER * len(_SPLITS[split])
        images, digest = decode_once(
            key,
            shape=(count, *self.shape),
            chunks=lambda: (images for images, _ in members()),
            in_memory=self.in_memory,
            origin=str(source),
        )
        classes, _ = decode_once(
            f"{key}-labels",
            shape=(count,),
            chunks=lambda: (labels for _, labels in members()),
            in_memory=True,
            origin=str(source),
        )
        labels = classes.astype(np.int64)
        identity = combine_digests(digest, array_digest(labels))
        return ImageArrays(images, labels, self.num_classes, identity, f"cifar10/{split}")

    def _find(self) -> Path | None:
        if self.root is not None and expanded(self.root).is_file():
            return expanded(self.root)
        folders = search_folders(self.root)
        own = next((folder for folder in folders if (folder / "test_batch").is_file()), None)
        return first_existing(folders, [ARCHIVE, FOLDER, f"cifar10/{ARCHIVE}"]) or own

    def _missing(self) -> UsageError:
        folders = ", ".join(str(folder) for folder in search_folders(self.root))
        return UsageError(
            f"{ARCHIVE} (or the folder {FOLDER}) was not found in any of: {folders}.",
            key="dataset.root",
            remedy=f"Set dataset.root or FLOWEXP_DATA to its folder, fetch {URL}, or set "
            "dataset.download=true.",
        )


def _verify_archive(file: Path) -> None:
    digest = file_sha256(file)
    if digest != ARCHIVE_SHA256:
        raise UsageError(
            f"{file} is not the publisher's {ARCHIVE} (sha256 {digest}, expected "
            f"{ARCHIVE_SHA256}).",
            key="dataset.root",
            remedy="Replace the file.",
        )


def _members(source: Path, split: str) -> list[tuple[Array, Array]]:
    """Images (10000, 3, 32, 32) and labels (10000,), both uint8, member by member."""
    names = _SPLITS[split]
    contents = (_read_folder if source.is_dir() else _read_archive)(source, names)
    members = []
    for name in names:
        if name not in contents:
            raise _damaged(f"{source} has no member {name}")
        content = contents[name]
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if digest != MEMBER_MD5[name]:
            raise _damaged(f"{source}: {name} is not the publisher's (md5 {digest})")
        members.append(_parse(content, member=f"{source}: {name}"))
    return members


def _read_archive(file: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    contents = {}
    try:
        with tarfile.open(file, "r:gz") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                stream = archive.extractfile(member) if name in names else None
                if stream is not None:
                    contents[name] = stream.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise _damaged(f"{file} is damaged ({error})") from error
    return contents


def _read_folder(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def _parse(content: bytes, *, member: str) -> tuple[Array, Array]:
    """The member's dictionary: "data" (10000, 3072) uint8, planes R, G, B, and "labels", a list."""
    try:
        record = load_plain(content)
        images = np.asarray(record["data"])
        labels = np.asarray(record["labels"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(f"{member} cannot be read ({error})") from error
    if images.dtype != np.uint8 or images.shape != (PER_MEMBER, 3 * 32 * 32):
        raise _damaged(f"{member} holds {images.dtype} images of shape {images.shape}")
    if labels.shape != (PER_MEMBER,) or labels.min() < 0 or labels.max() > 9:
        raise _damaged(f"{member} does not hold {PER_MEMBER} labels in 0..9")
    return images.reshape(PER_MEMBER, 3, 32, 32), labels.astype(np.uint8)


def _damaged(problem: str) -> UsageError:
    return UsageError(f"{problem}.", key="dataset.root", remedy=f"Fetch {URL} again.")


def _reconstruct(*_: object) -> Array:
    """The empty array that the pickle's next instruction fills."""
    return np.ndarray((0,), dtype=np.uint8)


# Old files contain the module names from before numpy 2.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - the protocol's signature
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise ValueError(f"it requires {module}.{name}, which is not allowed") from None


def load_plain(content: bytes) -> Any:  # noqa: ANN401 - whatever plain value the file holds
    """The value in a pickle of builtin containers, strings, numbers and numpy arrays; runs no code.

    Strings of Python 2 are read as latin-1, which numpy's array bytes survive. A pickle that is
    damaged or requires anything else raises ``ValueError``.
    """
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except ValueError:
        raise
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError, OverflowError,
            MemoryError) as error:  # fmt: skip
        raise ValueError(f"it is damaged ({error})") from error
