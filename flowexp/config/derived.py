"""Values that a config leaves to a function: ``${derived:my_package.function,argument,...}``.

A yaml of the user's or of flowexp's writes it where a value follows from the data, such as the
number of classes in a folder. The function is imported when the value is asked for, so a value that
is given costs nothing. Stored configs hold values; an interpolation in one is refused.
"""

import importlib

from omegaconf import ListConfig, OmegaConf

from flowexp.errors import UsageError

__all__ = ["register_derived", "why_not_derived"]


def register_derived() -> None:
    """Let configs of this process derive values."""
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
    """What a function refused, if that is why a value could not be resolved."""
    while error is not None and not isinstance(error, UsageError):
        error = error.__cause__ or error.__context__
    return error
