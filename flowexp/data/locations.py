"""Locations of data: the user's folders, and a cache that may be deleted at any time."""

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["cache_dir", "data_dir", "first_existing", "search_folders"]


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
    """Folders to search: ``root`` alone if given, else ``$FLOWEXP_DATA`` and the usual ones.

    Args:
        root: The value of ``dataset.root``, or None.
        well_known: Folders of packages and tools that provide the data.
    """
    if root is not None:
        return [Path(root).expanduser()]
    own = data_dir()
    folders = [] if own is None else [own]
    return [*folders, *(Path(folder) for folder in well_known), cache_dir() / "downloads"]


def first_existing(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first of ``folder / name`` that exists, folder by folder."""
    candidates = (folder / name for folder in folders for name in names)
    return next((candidate for candidate in candidates if candidate.exists()), None)
