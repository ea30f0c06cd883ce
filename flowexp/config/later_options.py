"""Options that parts were given after configs had been stored."""

import functools
from collections.abc import Mapping
from typing import Any

from flowexp.config.renamed import present
from flowexp.config.stand_in import class_value
from flowexp.requirements import UnknownError

__all__ = ["without_later_options"]


def without_later_options(config: Any) -> Any:  # noqa: ANN401 -- any configuration value
    """A plain config as it would have been stored before parts got options that leave it as it was.

    See :class:`flowexp.identity.Stored`.
    """
    if isinstance(config, list):
        return [without_later_options(item) for item in config]
    if not isinstance(config, Mapping):
        return config
    later = _later_options_of(config.get("_target_"))
    return {
        name: without_later_options(value)
        for name, value in config.items()
        if name not in later or value != later[name]
    }


@functools.cache
def _later_options_of(target: object) -> Mapping[str, object]:
    try:
        found = class_value(present(target), "later_options") if isinstance(target, str) else {}
    except UnknownError:
        return {}
    return found if isinstance(found, Mapping) else {}
