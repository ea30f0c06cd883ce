"""Locations of data: the user's folders, a cache that may be deleted at any time, downloads."""

import os
import shutil
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from flowexp.errors import UsageError
from flowexp.files import write_atomically

__all__ = ["cache_dir", "data_dir", "fetch", "first_existing", "search_folders"]

_TIMEOUT_SECONDS = 60.0


def data_dir() -> Path | None:
    """``$FLOWEXP_DATA``, the folder of all data sets, if it is set."""
    value = os.environ.get("FLOWEXP_DATA")
    return Path(value).expanduser() if value else None


def cache_dir() -> Path:
    """``$FLOWEXP_CACHE``, else ``$XDG_CACHE_HOME/flowexp``, else ``~/.cache/flowexp``."""
    value = os.environ.get("FLOWEXP_CACHE")
    if value:
        return Path(value).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "flowexp"


def search_folders(root: str | None, *, well_known: Sequence[str | Path] = ()) -> list[Path]:
    """``root`` alone if given, else ``$FLOWEXP_DATA``, the well known folders and the downloads."""
    if root is not None:
        return [Path(root).expanduser()]
    own = data_dir()
    folders = [] if own is None else [own]
    return [*folders, *(Path(folder) for folder in well_known), cache_dir() / "downloads"]


def first_existing(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first of ``folder / name`` that exists, folder by folder."""
    candidates = (folder / name for folder in folders for name in names)
    return next((candidate for candidate in candidates if candidate.exists()), None)


def fetch(url: str, target: Path, *, verify: Callable[[Path], object]) -> Path:
    """Download a file, at the user's request, under a temporary name, verify it, and rename it.

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
