"""Where data lies: the user's folders, and a cache that may be deleted at any time."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

__all__ = ["cache_dir", "data_dir", "first_existing", "part_file", "search_folders"]


def data_dir() -> Path | None:
    """``$FLOWEXP_DATA``: the folder in which all data sets are looked for, if it is set."""
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
    """Folders to look in: ``root`` alone if it is given, else ``$FLOWEXP_DATA`` and the usual ones.

    Args:
        root: The value of ``dataset.root``, or None.
        well_known: Folders of packages and tools that bring the data.
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


def part_file(target: Path) -> Path:
    """A name beside ``target`` that no other process uses, for a file not yet whole."""
    return target.with_name(f"{target.name}.{secrets.token_hex(8)}.part")
