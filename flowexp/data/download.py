"""Fetching a file from its publisher, only ever because the user asked for it."""

import hashlib
import urllib.request
from collections.abc import Callable
from pathlib import Path

from flowexp.data.locations import part_file
from flowexp.errors import UsageError

__all__ = ["fetch", "file_digest"]

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60.0


def file_digest(file: Path, *, algorithm: str = "sha256") -> str:
    """Digest (hex) of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(
            stream, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()


def fetch(url: str, target: Path, *, verify: Callable[[Path], object]) -> Path:
    """Download a file beside its place, verify it, and rename it into place.

    Args:
        url: Address at the publisher.
        target: Where the file shall be; folders are made.
        verify: Raises UsageError if the file it is given is not the right one.

    Raises:
        UsageError: If the download fails, or the file is refused.
    """
    part = part_file(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        out = part.open("xb")
    except OSError as error:
        raise UsageError(
            f"{target.parent} cannot be written ({error}).",
            key="dataset.download",
            remedy="Set FLOWEXP_CACHE to a folder that can be.",
        ) from error
    try:
        with out:
            _copy(url, out.write)
        verify(part)
        part.replace(target)
    except OSError as error:
        raise UsageError(
            f"{url} could not be downloaded ({error}).",
            key="dataset.download",
            remedy=f"Fetch it by other means and put it into {target.parent}.",
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _copy(url: str, write: Callable[[bytes], object]) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
        while block := response.read(_BLOCK):
            write(block)
