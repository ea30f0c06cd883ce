"""The one place where config nodes become objects."""

import functools
from collections.abc import Mapping
from typing import Any

from flowexp.config.renamed import present
from flowexp.errors import UsageError

__all__ = ["instantiate"]


def instantiate(node: object, *, key: str) -> Any:  # noqa: ANN401 - the config decides the type
    """The object that a plain config node describes.

    Args:
        node: Plain node with a ``_target_``, or a mapping/list of such nodes, or a plain value.
        key: Where the node stands in the config, for messages.

    Raises:
        UsageError: The constructor refused its arguments; its own message is kept.
    """
    import hydra.utils
    from hydra.errors import InstantiationException

    if isinstance(node, Mapping) and "_target_" not in node:
        return {name: instantiate(value, key=f"{key}.{name}") for name, value in node.items()}
    try:
        built = hydra.utils.instantiate(present(node), _convert_="all")
    except InstantiationException as error:
        raise _as_usage_error(error, key) from error
    # Hydra's partials are a private subclass that newer versions cannot pickle.
    if isinstance(built, functools.partial):
        return functools.partial(built.func, *built.args, **built.keywords)
    return built


def _as_usage_error(error: Exception, key: str) -> Exception:
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, UsageError):
        cause = cause.__cause__
    if isinstance(cause, UsageError):
        return cause
    if isinstance(cause, ValueError | TypeError | ImportError | AttributeError):
        sentence = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        missing = isinstance(cause, ModuleNotFoundError)
        remedy = "Start in the folder that holds it, or install it." if missing else None
        return UsageError(f"{sentence.rstrip('.')}.", key=key, remedy=remedy)
    return cause if isinstance(cause, Exception) else error
