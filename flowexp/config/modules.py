"""Modules that cannot be imported: what is wrong with them, and how their folder is declared."""

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
    """Whether the first package of a module can be found, without an import."""
    try:
        package = module.partition(".")[0]
        return package in sys.modules or find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def missing_module(key: str, target: str, *, module: str, near: Iterable[Path] = ()) -> Problem:
    """Why the target at ``key`` cannot be imported if there is no such module.

    ``near`` are the folders that the command names.
    """
    if "." not in target:
        text = f"{target} is a name without its module."
        return Problem(key, text, f"Write {key}=FILE.{target} for a class of FILE.py.")
    text = f"{target} cannot be imported: there is no module {module}."
    if "." in module:
        return Problem(key, text, f"Look into the package {module.rpartition('.')[0]}.")
    guess = nearest(module, (file.stem for file in Path().glob("*.py")))
    remedy = f"Did you mean {guess}? " if guess else ""
    return Problem(key, text, remedy + where_it_is(module, near=near))


def where_it_is(module: str, *, near: Iterable[Path] = ()) -> str:
    """How a module outside this folder is declared; its folder is looked for above ``near``."""
    name = module.partition(".")[0]
    for folder in _above(near):
        if (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file():
            shown = os.path.relpath(folder)
            return (
                f"It lies in {shown}: run the command there, or put "
                f"PYTHONPATH={shlex.quote(shown)} before it."
            )
    return (
        f"Run the command in the folder that holds {name}.py, put PYTHONPATH=THAT_FOLDER before "
        "it, or install it."
    )


def _above(near: Iterable[Path]) -> Iterator[Path]:
    for path in near:
        folder = path.absolute()
        yield from (folder, *folder.parents[:_LEVELS])


def broken_source(key: str, target: str, error: SyntaxError) -> Problem:
    """Why a target cannot be imported if its source does not parse."""
    where = f"{shown_file(error.filename or '')}, line {error.lineno}"
    text = f"{target} cannot be imported: {type(error).__name__} in {where}: {error.msg}."
    return Problem(key, text, "Correct it there.")


def import_failure(error: BaseException, *, key: str, target: str) -> Problem | None:
    """Why importing a target failed; None if it was not the import that did."""
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
        text = f"{target} cannot be imported: {where}, imports {missing}, which is not here."
        return Problem(key, text, f"Install {missing.partition('.')[0]}, or correct the line.")
    what = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(" .:")
    return Problem(key, f"{target} cannot be imported: {where}: {what}.", "Correct it there.")
