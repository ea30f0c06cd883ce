"""The read-only file functions that evaluated code may use."""

import difflib
import json
import os
import re
from importlib.util import find_spec
from pathlib import Path, PurePath
from types import MappingProxyType, SimpleNamespace
from typing import Any, NoReturn

from flowexp.requirements import UnknownError

__all__ = ["READING"]


class _ReadOnly(type(Path())):  # type: ignore[misc]  # before Python 3.12, Path itself has no subclasses
    """A path that cannot be written to."""

    def _unknown(self, *_: object, **__: object) -> NoReturn:
        raise UnknownError(str(self))

    chmod = hardlink_to = lchmod = link_to = mkdir = open = rename = replace = rmdir = _unknown
    symlink_to = touch = unlink = write_bytes = write_text = _unknown

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        with open(os.fspath(self), encoding=encoding or "utf-8", errors=errors) as file:
            return file.read()

    def read_bytes(self) -> NoReturn:
        raise UnknownError(str(self))


_OS = SimpleNamespace(path=os.path, environ=MappingProxyType(os.environ), fspath=os.fspath)
READING: dict[str, Any] = {
    "difflib": difflib,
    "importlib": SimpleNamespace(util=SimpleNamespace(find_spec=find_spec)),
    "json": SimpleNamespace(loads=json.loads),
    "os": _OS,
    "pathlib.Path": _ReadOnly,
    "pathlib.PurePath": PurePath,
    "re": re,
}
"""Imports, ``module`` or ``module.name``, and their replacements."""
