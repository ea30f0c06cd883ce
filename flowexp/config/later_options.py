"""Options that parts were given after configs had been stored."""

import functools
from collections.abc import Mapping
from typing import Any, cast

from flowexp.config.renamed import present
from flowexp.config.stand_in import class_value
from flowexp.requirements import UnknownError
from flowexp.tree import nodes, plain

__all__ = ["without_later_options"]


def without_later_options(config: Any) -> Any:  # noqa: ANN401 -- any configuration value
    """A plain config as it would have been stored before parts got options that leave it as it was.

    See :class:`flowexp.identity.Stored`.
    """
    kept = plain(config)
    for _, node in nodes(kept):
        for name, value in _later_options_of(node.get("_target_")).items():
            if name in node and node[name] == value:
                del cast("dict[str, Any]", node)[name]  # a dict, since plain() made it
    return kept


@functools.cache
def _later_options_of(target: object) -> Mapping[str, object]:
    try:
        found = class_value(present(target), "later_options") if isinstance(target, str) else {}
    except UnknownError:
        return {}
    return found if isinstance(found, Mapping) else {}
