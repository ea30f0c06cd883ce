"""Config values computed by a function: ``${derived:my_package.function,argument,...}``.

A yaml uses it for a value that follows from the data, such as the number of classes in a folder.
The function is imported only if the value is not given. Stored configs hold the computed values;
this interpolation is refused in them.
"""

import importlib

from omegaconf import ListConfig, OmegaConf

from flowexp.errors import UsageError

__all__ = ["register_derived", "why_not_derived"]


def register_derived() -> None:
    """Register the resolver ``derived``."""
    OmegaConf.register_new_resolver("derived", _derived, replace=True)


def _derived(function: str, *arguments: object) -> object:
    module, _, name = function.rpartition(".")
    try:
        value: object = getattr(importlib.import_module(module), name)(*arguments)
    except UsageError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}".rstrip(".")
        raise UsageError(f"cannot be derived by {function} ({said}).") from error
    return ListConfig(value) if isinstance(value, list) else value


def why_not_derived(error: BaseException | None) -> UsageError | None:
    """The error of a deriving function among the causes of an error, if there is one."""
    while error is not None and not isinstance(error, UsageError):
        error = error.__cause__ or error.__context__
    return error
