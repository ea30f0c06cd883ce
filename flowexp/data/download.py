"""Downloading a file from its publisher, only on the user's request."""

import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path

from flowexp.errors import UsageError
from flowexp.files import write_atomically

__all__ = ["fetch"]

_TIMEOUT_SECONDS = 60.0


def fetch(url: str, target: Path, *, verify: Callable[[Path], object]) -> Path:
    """Download a file under a temporary name, verify it, and rename it.

    Args:
        url: Address at the publisher.
        target: Path of the file; folders are created.
        verify: Raises UsageError if the file is not the right one.

    Raises:
        UsageError: The download fails, or the file is refused.
    """

    def download(part: Path) -> None:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
                with part.open("xb") as out:
                    shutil.copyfileobj(response, out)
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
