"""The run that a verb starts from: what is wrong where none is named, or it is none."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from flowexp.config.override_text import typed
from flowexp.config.problems import Problem
from flowexp.config.run_folders import is_run, known_runs, listed, nearest_run, runs_below
from flowexp.config.sources import runs_by_key

__all__ = ["problems_with_run"]


def problems_with_run(config_name: str, overrides: Sequence[str]) -> list[Problem]:
    """A verb that starts from a run needs a run directory before anything can be composed."""
    key, runs = runs_by_key(list(overrides))
    if not runs:
        known = known_runs(Path("outputs"))[-1:]
        latest = "".join(f", such as {typed('run', path)}" for path in known)
        remedy = f"Give run=DIR, a directory that train wrote{latest}."
        return [Problem("run", f"{config_name} needs a run.", remedy)]
    key = "from" if key == "parent" else key
    verb = config_name.partition("_")[0]  # train_run, train_from
    problems = []
    for folder in (Path(run) for run in runs if not is_run(Path(run))):
        inside = runs_below(folder)
        if inside and key != "recipe":
            count = f"{len(inside)} run{'s' if len(inside) > 1 else ''}"
            text = f"{folder} holds {count} ({listed(folder, inside)}), but {verb} takes one run."
            remedy = f"Name a run: {_with_run(verb, overrides, inside[0], key)}"
            problems.append(Problem(key, text, remedy))
            continue
        what = "holds no run." if folder.is_dir() else "is not a run directory (no such folder)."
        what = "is a file, not a run directory." if folder.is_file() else what
        problems.append(Problem(key, f"{folder} {what}", _runs_nearby(folder, key)))
    return problems


def _with_run(verb: str, overrides: Sequence[str], run: Path, key: str) -> str:
    """The command line with another run."""
    rest = [text for text in overrides if not text.startswith(("run=", "parent="))]
    return " ".join(["flowexp", verb, typed(key, str(run)), *map(shlex.quote, rest)])


def _runs_nearby(folder: Path, key: str) -> str:
    guess, known = nearest_run(folder), known_runs(folder)
    if guess is not None:
        return f"Did you mean {typed(key, str(guess))}?"
    return (
        f"The latest one is {typed(key, str(known[-1]))}."
        if known
        else "Train one first: flowexp train."
    )
