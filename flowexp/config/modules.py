"""Modules that cannot be imported: the reason, and how to make their folder known."""

import os
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from flowexp.config.failures import outside_frame, shown_file
from flowexp.config.problems import Problem, nearest
from flowexp.config.renamed import present

__all__ = ["broken_source", "import_failure", "is_there", "missing_module", "where_it_is"]

_LEVELS = 6


def is_there(module: str) -> bool:
    """Whether the top-level package of a module can be found, without importing it."""
    try:
        package = module.partition(".")[0]
        return package in sys.modules or find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def missing_module(key: str, target: str, *, module: str, near: Iterable[Path] = ()) -> Problem:
    """The problem of a target at ``key`` whose module does not exist.

    ``near`` are the folders that the command names.
    """
    if "." not in target:
        text = f"{target} lacks the name of its module."
        return Problem(key, text, f"Write {key}=FILE.{target} for a class of FILE.py.")
    text = f"{target} cannot be imported: there is no module {module}."
    if "." in module:
        return Problem(key, text, f"Name a module of {module.rpartition('.')[0]}.")
    guess = nearest(module, (file.stem for file in Path().glob("*.py")))
    remedy = f"Did you mean {guess}? " if guess else ""
    return Problem(key, text, remedy + where_it_is(module, near=near))


def where_it_is(module: str, *, near: Iterable[Path] = ()) -> str:
    """How to make a module outside this folder known; its folder is searched above ``near``."""
    name = module.partition(".")[0]
    for folder in _above(near):
        if (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file():
            shown = os.path.relpath(folder)
            return (
                f"It is in {shown}: run the command there, or put "
                f"PYTHONPATH={shlex.quote(shown)} before it."
            )
    return (
        f"Run the command in the folder that holds {name}.py, put PYTHONPATH=THAT_FOLDER before "
        f"it, or install {name}."
    )


def _above(near: Iterable[Path]) -> Iterator[Path]:
    for path in near:
        folder = path.absolute()
        yield from (folder, *folder.parents[:_LEVELS])


def broken_source(key: str, target: str, error: SyntaxError) -> Problem:
    """The problem of a target whose source does not parse."""
    where = f"{shown_file(error.filename or '')}, line {error.lineno}"
    text = f"{target} cannot be imported: {type(error).__name__} in {where}: {error.msg}."
    return Problem(key, text, "Fix that line.")


def import_failure(error: BaseException, *, key: str, target: str) -> Problem | None:
    """The problem of a target whose import failed; None if something else failed."""
    key, module = f"{key}._target_", present(target).rpartition(".")[0]
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{module}.".startswith(f"{missing}."):
        return missing_module(key, target, module=missing)
    importing = {
        frame.f_globals.get("__name__")
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == "<module>"
    }
    own = Path(*module.split(".")).with_suffix(".py").parts
    if isinstance(error, SyntaxError):
        at_fault = Path(error.filename or "").parts[-len(own) :] == own or module in importing
        return broken_source(key, target, error) if at_fault else None
    found = outside_frame(error, {module.partition(".")[0]})
    if found is None or module not in importing:
        return None
    frame, line = found
    where = f"{shown_file(os.path.abspath(frame.f_code.co_filename))}, line {line}"
    if missing:
        text = f"{target} cannot be imported: {where}, imports {missing}, which is not installed."
        return Problem(key, text, f"Install {missing.partition('.')[0]}, or fix that line.")
    what = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(" .:")
    return Problem(key, f"{target} cannot be imported: {where}: {what}.", "Fix that line.")
