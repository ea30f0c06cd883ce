"""Files that are either complete or absent: written beside their place and renamed into it."""

import errno
import hashlib
import importlib.util
import json
import logging
import math
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flowexp.errors import NotWrittenError

__all__ = [
    "expanded",
    "file_sha256",
    "json_number",
    "packaged",
    "room_for",
    "shown",
    "warn_without_cache",
    "write_atomically",
    "write_bytes",
    "write_json",
    "write_npz",
    "write_text",
    "write_torch",
    "write_with_link",
]


_LOG = logging.getLogger(__name__)
_PIECE = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
# How the C++ writer of torch.save and the Rust writer of safetensors say the same.
_SAID = re.compile(rf"inline_container|iostream error|os error ({'|'.join(map(str, _NO_ROOM))})\b")


def expanded(path: Path | str) -> Path:
    """A path with the user's home for ``~``; as it stands where he has none, as in a container."""
    return Path(os.path.expanduser(path))


def shown(path: Path) -> str:
    """A path as a person would type it: relative where it lies below the working directory."""
    resolved = path.resolve()
    here = Path.cwd()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(path)


@cache
def warn_without_cache(folder: Path | None) -> None:
    """Say, once for a folder, that nothing is cached there, why, and how to change that."""
    error = sys.exception()
    _LOG.warning(
        "%s: data are decoded and statistics computed again in every run. Set FLOWEXP_CACHE "
        "to a folder that can be written.",
        f"the cache {folder} cannot be written ({error})"
        if folder
        else "there is no home folder for a cache",
    )


@contextmanager
def room_for(path: Path, *, size: int | None = None) -> Iterator[None]:
    """A full disk while ``path`` is written is named with the space needed and left.

    Args:
        path: The file.
        size: Bytes that are to be written, where it is known.

    Raises:
        NotWrittenError: There is no room for the file.
    """
    try:
        yield
    except NotWrittenError:
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        if code not in _NO_ROOM and (code is not None or not _SAID.search(str(error))):
            raise
        reason = os.strerror(code) if code else "the disk is full, or a limit on files is reached"
        space = []
        if size is not None:
            space.append(f"{size / 1e6:,.1f} MB needed")
        with suppress(OSError):
            space.append(f"{shutil.disk_usage(path.parent).free / 1e6:,.1f} MB free")
        what = f"{path} could not be written ({reason}; {', '.join(space)})"
        raise NotWrittenError(what) from error


def write_atomically(
    path: Path, write: Callable[[Path], object], *, size: int | None = None
) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, rename that to ``path`` and return it.

    The content reaches the disk before the name does, so that a kill or a power cut leaves the old
    file or the new one. Missing folders are made. The temporary name keeps the suffix of ``path``,
    by which some writers choose their format. ``size`` is about how many bytes will be written.

    Raises:
        NotWrittenError: There is no room for the file.
    """
    with room_for(path, size=size):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
        try:
            write(beside)
            _flush(beside)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
        _flush(path.parent)
    return path


def file_sha256(path: Path, *, on_piece: Callable[[int], object] | None = None) -> str:
    """sha256 (hex) of a file; ``on_piece`` is called with the number of bytes of each piece."""
    with path.open("rb") as file:
        if on_piece is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while piece := file.read(_PIECE):
            digest.update(piece)
            on_piece(len(piece))
        return digest.hexdigest()


def packaged(package: str, file: str) -> Path | None:
    """A file in the folder of an installed package, which is not imported; None without it."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / file


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text; see :func:`write_atomically`."""
    return write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> Path:
    """Write bytes; see :func:`write_atomically`."""
    return write_atomically(path, lambda beside: beside.write_bytes(content), size=len(content))


def write_json(path: Path, content: Any) -> Path:  # noqa: ANN401 -- whatever json can write
    """Write indented JSON; numbers that are not finite are refused, as JSON has none.

    Raises:
        ValueError: If the content holds nan or an infinity.
    """
    return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def json_number(value: Any) -> Any:  # noqa: ANN401 -- what is no float stays as it is
    """A float as JSON has it: nan becomes null, an infinity the word ``inf`` or ``-inf``."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def write_npz(path: Path, arrays: Mapping[str, Any]) -> Path:
    """Write named numpy arrays; see :func:`write_atomically`."""
    size = sum(np.asarray(array).nbytes for array in arrays.values())
    return write_atomically(path, lambda beside: np.savez(beside, **arrays), size=size)


def write_torch(path: Path, content: Any) -> Path:  # noqa: ANN401 -- tensors in plain containers
    """Write tensors in plain containers with ``torch.save``; see :func:`write_atomically`."""
    import torch

    def size(part: Any) -> int:  # noqa: ANN401
        if isinstance(part, Mapping | list | tuple):
            return sum(map(size, part.values() if isinstance(part, Mapping) else part))
        return part.nbytes if isinstance(part, torch.Tensor) else 0

    return write_atomically(path, lambda beside: torch.save(content, beside), size=size(content))


def write_with_link(path: Path, *, target: Path) -> Path:
    """Make ``path`` a second name of ``target``: a hard link, or a copy where there are none."""

    def link(beside: Path) -> None:
        try:
            os.link(target, beside)
        except OSError:
            shutil.copyfile(target, beside)

    return write_atomically(path, link)


def _flush(path: Path) -> None:
    """Ask the system to put a file's content, or a folder's names, on the disk."""
    if os.name != "posix" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
