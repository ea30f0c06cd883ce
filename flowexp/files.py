"""Files that are either complete or absent: written beside their place and renamed into it."""

import hashlib
import importlib.util
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "file_sha256",
    "json_number",
    "packaged",
    "write_atomically",
    "write_bytes",
    "write_json",
    "write_npz",
    "write_text",
    "write_torch",
    "write_with_link",
]


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, rename that to ``path`` and return it.

    The content reaches the disk before the name does, so that a kill or a power cut leaves the old
    file or the new one. Missing folders are made. The temporary name keeps the suffix of ``path``,
    by which some writers choose their format.
    """
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


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packaged(package: str, file: str) -> Path | None:
    """A file in the folder of an installed package, which is not imported; None without it."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / file


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text; see :func:`write_atomically`."""
    return write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> Path:
    """Write bytes; see :func:`write_atomically`."""
    return write_atomically(path, lambda beside: beside.write_bytes(content))


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
    return write_atomically(path, lambda beside: np.savez(beside, **arrays))


def write_torch(path: Path, content: Any) -> Path:  # noqa: ANN401 -- tensors in plain containers
    """Write tensors in plain containers with ``torch.save``; see :func:`write_atomically`."""
    import torch

    return write_atomically(path, lambda beside: torch.save(content, beside))


def write_with_link(path: Path, *, target: Path) -> Path:
    """Make ``path`` a second name of ``target``: a hard link, or a copy where there are none."""
    import shutil

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
