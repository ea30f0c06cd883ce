"""The one place where config nodes become objects.

What the user has not written himself is held against :mod:`flowexp.config.trust` first, and that
is what happens where nobody says who wrote a node.
"""

import functools
from collections.abc import Mapping
from typing import Any

from flowexp.config.failures import outside_frame
from flowexp.config.modules import import_failure
from flowexp.config.problems import refusal
from flowexp.config.renamed import present
from flowexp.config.trust import KINDS, STRANGER, Author, admitted, require_kind
from flowexp.errors import UsageError
from flowexp.tree import nodes

__all__ = ["instantiate"]


def instantiate(node: object, *, key: str, by: Author = STRANGER) -> Any:  # noqa: ANN401 - any type
    """The object that a plain config node describes.

    Args:
        node: Plain node with a ``_target_``, or a mapping/list of such nodes, or a plain value.
        key: Where the node stands in the config: its group, what may stand there and messages.
        by: Who wrote it.

    Raises:
        UsageError: A stored node names what it may not, the constructor refused its arguments (then
            its own message is kept), or what it made is no part of the group.
    """
    try:
        admitted(node, key=key, by=by)
    except (ImportError, AttributeError) as error:
        raise _as_usage_error(error, key, node) from error
    built = _built(node, key)
    group = key.rpartition(": ")[2]
    if group in KINDS and isinstance(node, Mapping):
        named = {key: built}
        if "_target_" not in node:
            named = {f"{key}.{name}": part for name, part in built.items() if part is not None}
        for where, part in named.items():
            require_kind(part, group=group, key=where)
    return built


def _built(node: object, key: str) -> Any:  # noqa: ANN401 - the config decides the type
    import hydra.utils
    from hydra.errors import InstantiationException

    if isinstance(node, Mapping) and "_target_" not in node:
        return {name: _built(value, f"{key}.{name}") for name, value in node.items()}
    try:
        built = hydra.utils.instantiate(present(node), _convert_="all")
    except InstantiationException as error:
        raise _as_usage_error(error, key, node) from error
    # Hydra's partials are a private subclass that newer versions cannot pickle.
    if isinstance(built, functools.partial):
        return functools.partial(built.func, *built.args, **built.keywords)
    return built


def _as_usage_error(error: Exception, key: str, node: object) -> Exception:
    """The exception for a part that could not be built.

    A failed import or a refused argument becomes a :class:`UsageError`. Any other exception is a
    bug in the part and is returned unchanged.
    """
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, UsageError):
        cause = cause.__cause__
    if isinstance(cause, UsageError):
        return cause
    for where, target in _targets(node, key):
        found = import_failure(cause, key=where, target=target)
        if found is not None:
            return UsageError(found.text, key=found.key, remedy=found.remedy or None)
    if isinstance(cause, ValueError | TypeError | ImportError | AttributeError) and (
        isinstance(cause, ValueError) or outside_frame(cause) is None
    ):
        found = refusal(cause, key=key, arguments=node if isinstance(node, Mapping) else {})
        return UsageError(found.text, key=found.key)
    return cause if isinstance(cause, Exception) else error


def _targets(node: object, key: str) -> list[tuple[str, str]]:
    """The targets of a node with their keys, innermost first, as they are built."""
    found = [(where, item["_target_"]) for where, item in nodes(node, key) if "_target_" in item]
    return [(where, target) for where, target in found[::-1] if isinstance(target, str)]
