"""Where data are: the user's folders, downloads, and a cache that may be deleted at any time.

The cache keeps decoded images, so that an archive is decoded once and not in every run. An entry is
``<key>.npy`` plus ``<key>.json`` with the digest of its content; both are written under another
name and renamed, the JSON file last. The key holds everything the pixels depend on.
"""

import hashlib
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flowexp.data.digests import Array, array_digest, digest_header
from flowexp.errors import UsageError
from flowexp.files import (
    expanded,
    file_sha256,
    warn_without_cache,
    write_atomically,
    write_json,
    write_text,
)
from flowexp.progress import Task, counted
from flowexp.progress.task import running
from flowexp.threads import workers

__all__ = ["cache_dir", "content_digest", "data_dir", "decode_once", "download_dir", "fetch",
           "find_images", "first_existing", "search_folders"]  # fmt: skip

Chunks = Callable[[], Iterable[npt.NDArray[np.uint8]]]

_TIMEOUT_SECONDS = 60.0
_SETTLED_NS = 10 * 10**9
_THREADS = 8
_PIECE = 1 << 20
_MEGABYTE = 1e6


def data_dir() -> Path | None:
    """``$FLOWEXP_DATA``, the folder of all data sets, if it is set."""
    value = os.environ.get("FLOWEXP_DATA")
    return expanded(value) if value else None


def cache_dir(*, warn: bool = False) -> Path | None:
    """``$FLOWEXP_CACHE``, else ``$XDG_CACHE_HOME/flowexp``, else ``~/.cache/flowexp``.

    None for a user without a home, as in a container; with ``warn``, that is said once.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = expanded(os.environ.get("FLOWEXP_CACHE") or f"{base}/flowexp")
    if folder.parts[0] != "~":
        return folder
    if warn:
        warn_without_cache(None)
    return None


def download_dir() -> Path:
    """The folder of downloads, in the cache.

    Raises:
        UsageError: There is no cache.
    """
    cache = cache_dir()
    if cache is None:
        raise UsageError(
            "there is no folder for downloads, since the user has no home.",
            key="dataset.download",
            remedy="Set FLOWEXP_CACHE to a writable folder.",
        )
    return cache / "downloads"


def search_folders(root: str | None, *, well_known: Sequence[str | Path] = ()) -> list[Path]:
    """``root`` alone if given, else ``$FLOWEXP_DATA``, the well known folders and the downloads."""
    if root is not None:
        return [expanded(root)]
    own, cache = data_dir(), cache_dir()
    folders = [] if own is None else [own]
    downloads = [] if cache is None else [cache / "downloads"]
    return [*folders, *(Path(folder) for folder in well_known), *downloads]


def first_existing(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first of ``folder / name`` that exists, folder by folder."""
    candidates = (folder / name for folder in folders for name in names)
    # A folder that must not be entered, such as another user's home, holds nothing for this one.
    return next((candidate for candidate in candidates if os.path.exists(candidate)), None)


def find_images(value: str, *, key: str) -> Path:
    """A folder or ZIP of images by its name, in the working directory or in ``$FLOWEXP_DATA``.

    Raises:
        UsageError: It is in neither; names the config ``key``.
    """
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
        remedy=f"Set {key} to a folder or ZIP of images, or FLOWEXP_DATA to its parent folder.",
    )


def fetch(url: str, target: Path, *, verify: Callable[[Path], object]) -> Path:
    """Download a file, at the user's request, under a temporary name, verify it, and rename it.

    Raises:
        UsageError: The download fails, or ``verify`` refuses the file.
    """

    def download(part: Path) -> None:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
                size = float(response.headers.get("Content-Length") or 0) / _MEGABYTE
                with (
                    part.open("xb") as out,
                    running(Task("downloaded", total=size or None, unit=f"MB of {url}")) as task,
                ):
                    while piece := response.read(_PIECE):
                        out.write(piece)
                        task.advance(len(piece) / _MEGABYTE)
        except OSError as error:
            raise UsageError(
                f"{url} could not be downloaded ({error}).",
                key="dataset.download",
                remedy=f"Download it by other means into {target.parent}.",
            ) from error
        verify(part)

    try:
        return write_atomically(target, download)
    except OSError as error:
        raise UsageError(
            f"{target.parent} is not writable ({error}).",
            key="dataset.download",
            remedy="Set FLOWEXP_CACHE to a writable folder.",
        ) from error


def content_digest(files: Sequence[Path]) -> str:
    """sha256 (hex) over the contents of files, in their order.

    Gigabytes are not read at every start: the digest is remembered in the cache by each file's
    device, inode, size, time of modification and time of change (ctime). No program can set the
    last, so a file that was rewritten and got back its size and time is read again. Two changes
    within a tick of the clock share a ctime, so files changed in the last ten seconds are not
    remembered, nor any on Windows, where ctime is the time of creation.
    """
    stats = [file.stat() for file in files]
    seen = [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats]
    cache, name = cache_dir(), hashlib.sha256(repr(seen).encode()).hexdigest()
    settled = max(s.st_ctime_ns for s in stats) < time.time_ns() - _SETTLED_NS
    memo = cache / "digests" / f"{name}.txt" if cache and settled and os.name == "posix" else None
    if memo is not None:
        try:
            return memo.read_text(encoding="ascii")
        except (OSError, ValueError):
            pass
    size = sum(s.st_size for s in stats) / _MEGABYTE
    with (
        ThreadPoolExecutor(workers(_THREADS)) as pool,
        counted("read", total=size, unit=f"MB of {_in_words(files)}") as task,
    ):

        def digest_of(file: Path) -> str:
            return file_sha256(file, on_piece=lambda size: task.advance(size / _MEGABYTE))

        contents = "\n".join(pool.map(digest_of, files))
    digest = hashlib.sha256(contents.encode()).hexdigest()
    if memo is not None:
        try:
            write_text(memo, digest)
        except OSError:
            pass  # decode_once says that the cache cannot be written
    return digest


def _in_words(files: Sequence[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{len(files):,} files in {files[0].parent.name}"


def decode_once(
    key: str, *, shape: Sequence[int], chunks: Chunks, in_memory: bool, origin: str
) -> tuple[Array, str]:
    """The decoded images of ``key`` and their ``array_digest``: from the cache, or decoded now.

    The images have the shape (N, C, H, W); ``chunks`` starts decoding and yields pieces of them,
    uint8, in order. ``in_memory`` reads an entry and checks its digest, instead of mapping it;
    ``origin`` is noted in it. If the cache cannot be written (no permission, no space), the images
    are decoded into memory and a warning is logged.
    """
    cache, shape = cache_dir(warn=True), tuple(shape)
    if cache is None:
        return _decode_in_memory(shape, chunks)
    folder = cache / "decoded"
    found = _load(folder, key, shape, in_memory)
    if found is not None:
        return found
    try:
        _store(folder, key, shape, chunks, origin)
    except OSError:
        warn_without_cache(cache)
        return _decode_in_memory(shape, chunks)
    return _load(folder, key, shape, in_memory) or _decode_in_memory(shape, chunks)


def _load(
    folder: Path, key: str, shape: tuple[int, ...], in_memory: bool
) -> tuple[Array, str] | None:
    try:
        record = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        # Copy on write: torch requires writable arrays, and the file must not change.
        images = np.load(
            folder / f"{key}.npy", mmap_mode=None if in_memory else "c", allow_pickle=False
        )
        digest = record["digest"]
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    if images.shape != shape or images.dtype != np.uint8 or not isinstance(digest, str):
        return None
    if in_memory and array_digest(images) != digest:
        return None
    return images, digest


def _store(folder: Path, key: str, shape: tuple[int, ...], chunks: Chunks, origin: str) -> None:
    digest = hashlib.sha256(digest_header(np.dtype(np.uint8), shape))
    header = {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": shape}

    # Written piece by piece: with a memory map a full disk kills the process.
    def write(part: Path) -> None:
        with part.open("xb") as out:
            np.lib.format.write_array_header_1_0(out, header)
            for chunk in chunks():
                data = np.ascontiguousarray(chunk).data
                out.write(data)
                digest.update(data)

    write_atomically(folder / f"{key}.npy", write)
    write_json(folder / f"{key}.json", {"digest": digest.hexdigest(), "origin": origin})


def _decode_in_memory(shape: tuple[int, ...], chunks: Chunks) -> tuple[Array, str]:
    images = np.empty(shape, dtype=np.uint8)
    start = 0
    for chunk in chunks():
        images[start : start + len(chunk)] = chunk
        start += len(chunk)
    return images, array_digest(images)
