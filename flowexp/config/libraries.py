"""Which packages are requirements of flowexp or installed libraries, not the user's code."""

import functools
import os
import re
import sys
import sysconfig
from collections.abc import Collection
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec

__all__ = ["is_library", "required"]

_ALWAYS = {"flowexp", "pytorch_lightning", "torch", "torchmetrics"}
_OTHERWISE_NAMED = {"PIL", "hydra", "joblib", "sklearn", "yaml"}
"""Packages whose distributions have other names."""


@functools.cache
def required() -> frozenset[str]:
    """The packages of Python, of flowexp and of its requirements."""
    known = _ALWAYS | _OTHERWISE_NAMED
    with suppress(metadata.PackageNotFoundError):
        names = (re.match(r"[\w.-]+", text) for text in metadata.requires("flowexp") or ())
        known |= {name[0].replace("-", "_").lower() for name in names if name}
    return sys.stdlib_module_names | known


def is_library(package: str, *, unless: Collection[str] = ()) -> bool:
    """Whether a package is flowexp, part of Python, or installed in its environment.

    An installed package in ``unless`` counts only if flowexp requires it.
    """
    if package in required():
        return True
    if package in unless:
        return False
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return False
    installed = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    return spec is not None and str(spec.origin).startswith(
        tuple(f"{i}{os.sep}" for i in installed)
    )
