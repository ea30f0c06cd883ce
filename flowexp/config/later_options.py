"""Options that parts were given after configs had been stored."""

import functools
from collections.abc import Mapping
from typing import Any, cast

from flowexp.config.renamed import present
from flowexp.config.stand_in import class_value
from flowexp.requirements import UnknownError
from flowexp.tree import nodes, plain

__all__ = ["later_options_of", "without_later_options"]


def without_later_options(config: Any, *, user: Any = None) -> Any:  # noqa: ANN401 -- any config
    """A plain config as it would have been stored before parts got options that leave it as it was.

    See :class:`flowexp.identity.Stored`. What a class says of its options is evaluated from its
    source. Of a stored ``config``, that is flowexp's own classes and those that a config of the
    ``user`` names as well.
    """
    kept = plain(config)
    own = {node.get("_target_") for _, node in nodes(kept if user is None else plain(user))}
    for _, node in nodes(kept):
        target = node.get("_target_")
        if not isinstance(target, str) or not (target in own or target.startswith("flowexp.")):
            continue
        for name, value in later_options_of(target).items():
            if name in node and node[name] == value:
                del cast("dict[str, Any]", node)[name]  # a dict, since plain() made it
    return kept


@functools.cache
def later_options_of(target: str) -> Mapping[str, object]:
    """Such options of a class, with the values that leave it as it was."""
    try:
        found = class_value(present(target), "later_options")
    except UnknownError:
        return {}
    return found if isinstance(found, Mapping) else {}
