"""Options and groups that configs were given after others had been stored."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from flowexp.config import conf_dir
from flowexp.config.renamed import present
from flowexp.config.stand_in import class_value
from flowexp.requirements import UnknownError
from flowexp.tree import nodes, plain

__all__ = ["LATER_GROUPS", "later_options_of", "option_file", "without_later_options"]

LATER_GROUPS: Mapping[str, str] = {"autoencoder": "none", "order": "epochs"}
"""Groups that configs have not always had, each with the option that leaves everything as it was.

A run without such a group is taken to have that option. With it, the group is no part of an
identity, whatever the option's arguments are.
"""


def option_file(group: str) -> Path:
    """The file of the option that a run without a later group is taken to have."""
    return conf_dir() / group / f"{LATER_GROUPS[group]}.yaml"


def without_later_options(config: Any, *, user: Any = None) -> Any:  # noqa: ANN401 -- any config
    """A plain config as it would have been stored before parts got options that leave it as it was.

    See :class:`flowexp.identity.Stored`. What a class says of its options is evaluated from its
    source. Of a stored ``config``, that is flowexp's own classes and those that a config of the
    ``user`` names as well.
    """
    kept = plain(config)
    for group in LATER_GROUPS.keys() & kept.keys() if isinstance(kept, dict) else ():
        node = kept[group]
        if isinstance(node, dict) and present(node.get("_target_")) == _target(group):
            del kept[group]
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
def _target(group: str) -> str:
    """The class that leaves everything as it was before there was a group."""
    content = yaml.safe_load(option_file(group).read_text(encoding="utf-8"))
    return str(content["_target_"])


@functools.cache
def later_options_of(target: str) -> Mapping[str, object]:
    """Such options of a class, with the values that leave it as it was."""
    try:
        found = class_value(present(target), "later_options")
    except UnknownError:
        return {}
    return found if isinstance(found, Mapping) else {}
