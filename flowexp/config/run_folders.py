"""Run directories: how arguments name them, which runs a folder holds, which one was meant."""

import difflib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from flowexp.config.override_text import typed
from flowexp.config.problems import nearest
from flowexp.errors import UsageError

__all__ = ["CONFIG", "MANIFEST", "is_run", "known_runs", "listed", "names_folder", "nearest_run",
           "newest", "require_run", "runs_at", "runs_below", "usual_runs"]  # fmt: skip

CONFIG, MANIFEST = "config.yaml", "manifest.json"
"""The files of a run directory from which options are read."""

_OUTPUTS = Path("outputs")
_SWEEP = "multirun.yaml"
_DEPTH = 4
_MOST = 200
_LISTED = 6
_NEWEST = 3


def names_folder(argument: str) -> bool:
    """Whether an argument is a bare path, ``outputs/a`` or ``sweep/seed=1``, not an override.

    A path with ``=`` must exist and have a ``/`` before it: ``./seed=1``.
    """
    before, equals, _ = argument.partition("=")
    if not equals:
        return argument[:1] not in ("~", "+", "-")
    separated = "/" in before or os.sep in before
    return separated and Path(argument).exists()


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory."""
    return (folder / CONFIG).is_file()


def require_run(path: Path, *, key: str, checkpoint: bool = True) -> None:
    """Refuse a path that is not a run directory or, by default, has no checkpoint.

    Raises:
        UsageError: The message names ``key``.
    """
    if not is_run(path):
        names = map(str, known_runs(path))
        near = difflib.get_close_matches(str(path), names, n=3, cutoff=0.5)
        raise UsageError(
            f"{path} is not a run directory (it holds no {CONFIG}).",
            key=key,
            remedy=f"Near it: {', '.join(near)}." if near else "Name a run directory.",
        )
    files = (path / "checkpoints").glob("[!.]*.ckpt")
    if checkpoint and not any(f.stem == "last" or f.stem.startswith("step-") for f in files):
        raise UsageError(
            f"the run {path} has no checkpoint yet.",
            key=key,
            remedy=f"Continue its training with flowexp train {typed('run', path)}, or name "
            "another run.",
        )


def runs_at(path: Path) -> list[Path]:
    """The run at a path, or the runs in that folder; the path itself if it is neither."""
    return [path] if is_run(path) else runs_below(path) or [path]


def runs_below(folder: Path) -> list[Path]:
    """The runs in a folder, on the first level that has any, sorted with ``9`` before ``10``."""
    for depth in range(1, _DEPTH + 1):
        found = [file.parent for file in folder.glob("*/" * depth + CONFIG)]
        if found:
            return sorted(found, key=_natural)
    return []


def known_runs(path: Path) -> list[Path]:
    """Runs below a path or below its folder, else below ``outputs``; the newest is last."""
    near = [folder for folder in (path, *path.parents) if folder.is_dir()][:2]
    for folder, depths in (*((f, (1, 2)) for f in near), (_OUTPUTS, range(1, _DEPTH + 1))):
        found = {file.parent for depth in depths for file in _some(folder, "*/" * depth + CONFIG)}
        if found:
            return sorted(found, key=_written)
    return []


def nearest_run(path: Path) -> Path | None:
    """The run that contains a path, else the run with the most similar name, or None."""
    holder = next((folder for folder in path.parents if is_run(folder)), None)
    guess = nearest(str(path), map(str, known_runs(path)))
    return holder or (None if guess is None else Path(guess))


def newest() -> list[Path]:
    """The newest few runs below ``outputs``, newest first; the runs of a sweep count as one."""
    runs = sorted(usual_runs(), key=_written, reverse=True)
    whole = [run.parent if (run.parent / _SWEEP).is_file() else run for run in runs]
    return list(dict.fromkeys(whole))[:_NEWEST]


def usual_runs() -> Iterator[Path]:
    """The runs below ``outputs``, at most some hundreds."""
    for depth in range(1, _DEPTH + 1):
        yield from (file.parent for file in _some(_OUTPUTS, "*/" * depth + CONFIG))


def listed(folder: Path, runs: list[Path]) -> str:
    """The names of runs in a folder: ``0, 1, 2``."""
    names = [str(run.relative_to(folder)) for run in runs[:_LISTED]]
    return ", ".join([*names, "..."] if len(runs) > _LISTED else names)


def _some(folder: Path, pattern: str) -> Iterator[Path]:
    return itertools.islice(folder.glob(pattern), _MOST)


def _written(run: Path) -> float:
    return (run / CONFIG).stat().st_mtime


def _natural(path: Path) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]
