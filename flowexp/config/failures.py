"""Which part of a config failed, and at which line of its source.

The frames of a traceback belong to flowexp, to libraries and to the user's own parts. The innermost
frame of a user's part is the one to report.
"""

import inspect
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from flowexp.config.libraries import is_library
from flowexp.config.renamed import present
from flowexp.errors import TRACEBACK
from flowexp.tree import nodes

__all__ = ["Place", "explain", "in_words", "outside_frame", "place_in", "shown_file"]


@dataclass(frozen=True)
class Place:
    """Where an exception came from.

    Attributes:
        function: The qualified name of the function, ``MyEuler.step``; ``<module>`` = at import.
        file: Its source file.
        line: The line in it.
        module: Its module, ``my_parts``.
        key: The config key of the part, ``sampler``; None = no part of the config.
        target: The ``_target_`` there.
    """

    function: str
    file: str
    line: int
    module: str
    key: str | None = None
    target: str | None = None

    def __str__(self) -> str:
        code = "while it was imported" if self.function == "<module>" else f"in {self.function}"
        part = "" if self.key is None else f" ({self.key}._target_={self.target})"
        return f"{code}, {shown_file(self.file)}, line {self.line}{part}"


def explain(error: BaseException, config: Mapping[str, Any] | None = None) -> None:
    """Add a first note to an exception that says where the part at fault raised it.

    ``config`` is the plain config of the job, in which the part is looked up.
    """
    place, notes = place_in(error, config or {}), getattr(error, "__notes__", [])
    if place is not None and not any(note.startswith("Raised ") for note in notes):
        error.__notes__ = [f"Raised {place}.", *notes]


def in_words(error: BaseException) -> str:
    """An exception and its notes as one paragraph: type, message, place, file of the traceback."""
    first = next(iter(str(error).splitlines()), "")
    sentence = f"{type(error).__name__}: {first}" if first else type(error).__name__
    notes = [" ".join(note.split()) for note in getattr(error, "__notes__", [])]
    if not any(TRACEBACK in note for note in notes):
        notes.append("Repeat the command with --debug for the traceback.")
    return " ".join([sentence if sentence.endswith((".", "!", "?")) else f"{sentence}.", *notes])


def place_in(error: BaseException, config: Mapping[str, Any]) -> Place | None:
    """Where the part at fault raised the error: its innermost line.

    None if neither a part of the config nor the user's code is in the traceback.
    """
    named = _named_in(config)
    packages = {target.partition(".")[0] for target in named.values()}
    for cause in _causes(error):
        inward = [*traceback.walk_tb(cause.__traceback__)]
        if not inward:
            continue
        outside = outside_frame(cause, packages)
        if outside is not None:
            frames = [frame for frame, _ in inward]
            key = _key_of(frames[frames.index(outside[0]) :: -1], named)
            return _place(*outside, key, named)
        for frame, line in reversed(inward):
            key = _key_of([frame], named)
            if key is not None:
                return _place(frame, line, key, named)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and its chain of causes."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        yield cause
        seen.append(cause)
        cause = cause.__cause__


def outside_frame(
    error: BaseException, packages: set[str] | frozenset[str] = frozenset()
) -> tuple[FrameType, int] | None:
    """The innermost frame, with its line, of code outside flowexp and libraries.

    Installed ``packages`` count as outside code, unless flowexp itself requires them.
    """
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        package = _module_of(frame).partition(".")[0]
        if package != "__main__" and not is_library(package, unless=packages):
            found = frame, line
    return found


def shown_file(file: str) -> str:
    """The path of a source file, relative if it is below the working directory."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file


def _place(frame: FrameType, line: int, key: str | None, named: Mapping[str, str]) -> Place:
    code = frame.f_code
    file = os.path.abspath(code.co_filename)
    target = None if key is None else named[key]
    return Place(code.co_qualname, file, line, _module_of(frame), key, target)


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _named_in(config: Mapping[str, Any]) -> dict[str, str]:
    """The targets of a config by their keys, innermost parts first."""
    found = [
        (key, str(node["_target_"])) for key, node in nodes(dict(config)) if "_target_" in node
    ]
    return dict(reversed(found))


def _key_of(frames: Sequence[FrameType], named: Mapping[str, str]) -> str | None:
    """The key of the part that the first of some frames, innermost first, belongs to.

    It is the part whose method the frame runs, else the part that called it, else a part of the
    same module.
    """
    for frame in frames:
        owner = _object_of(frame)
        for key, target in named.items():
            if owner is not None and type(owner) is _class_named(target):
                return key
    module = _module_of(frames[0])
    return next((k for k, t in named.items() if present(t).rpartition(".")[0] == module), None)


def _object_of(frame: FrameType) -> object | None:
    """The object whose method a frame runs, i.e. the method's first argument."""
    arguments = inspect.getargs(frame.f_code).args
    return frame.f_locals.get(arguments[0]) if arguments else None


def _class_named(target: str) -> type | None:
    """The class of a target, if its module has been imported."""
    module, _, name = present(target).rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None
