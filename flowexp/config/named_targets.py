"""``KEY._target_=CLASS`` on a command line: a class from anywhere as a part, without a yaml file.

``callbacks.lr._target_=pytorch_lightning.callbacks.LearningRateMonitor`` adds an entry to a group
of named parts, ``network._target_=my_package.MyNet`` replaces the class of the chosen option. Keys
below it are arguments of the new class, so they need no ``+``.
"""

import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict

from flowexp.config.later_options import later_options_of
from flowexp.config.schema import named_entries
from flowexp.config.signatures import RESERVED, UnknownTargetError, signature_of
from flowexp.config.sources import CONFIG, run_in
from flowexp.config.stored import read_stored
from flowexp.errors import UsageError
from flowexp.tree import select

__all__ = ["with_additions", "without_refused_keys"]

_TARGET = "._target_"


def with_additions(overrides: Sequence[Override], *, config_name: str) -> list[Override]:
    """A command line's overrides; those that may add a key get ``++`` in front."""
    named = set(_named(overrides))
    run = run_in([str(o.input_line) for o in overrides])
    return [
        replace(o, type=OverrideType.FORCE_ADD, input_line=f"++{o.input_line}")
        if _may_add(o, named, config_name) or (run is not None and _came_later(o, run))
        else o
        for o in overrides
    ]


def _came_later(override: Override, run: str) -> bool:
    """Whether an option is one that its part got after the config of a run had been stored."""
    above, _, name = str(override.key_or_group).rpartition(".")
    if override.type != OverrideType.CHANGE or not above:
        return False
    with suppress(UsageError):  # a run that cannot be read is reported where it is opened
        node = select(read_stored(Path(run) / CONFIG), above)
        target = str(node.get("_target_")) if isinstance(node, Mapping) else ""
        if target.startswith("flowexp.") and name not in node:
            return name in later_options_of(target)
    return False


def _named(overrides: Sequence[Override]) -> list[str]:
    """The nodes whose class is given."""
    own = [o for o in overrides if not o.is_delete() and not o.is_hydra_override()]
    keys = [str(o.key_or_group) for o in own]
    return [key.removesuffix(_TARGET) for key in keys if key.endswith(_TARGET)]


def _may_add(override: Override, named: set[str], config_name: str) -> bool:
    if override.type != OverrideType.CHANGE:
        return False
    parts = str(override.key_or_group).split(".")
    above = {".".join(parts[:depth]) for depth in range(1, len(parts))}
    if parts[-1] != "_target_":
        return not named.isdisjoint(above)
    # The class of a node that is not there: the entry is new, or its name is misspelt.
    new_entry = len(parts) == 3 and parts[0] in named_entries(config_name)
    return new_entry or not named.isdisjoint(above - {".".join(parts[:-1])})


def without_refused_keys(
    config: DictConfig,
    overrides: Sequence[Override],
    *,
    elsewhere: Callable[[str], Collection[str]],
) -> list[str]:
    """Remove values that were meant for another class than the one that the command line chooses.

    These are values of the chosen option whose class is replaced by ``KEY._target_=CLASS``, and
    values that a recipe, or the option of an outer group, sets for a part of which the command line
    chooses another option. What the command line itself gives is kept, so that a wrong key is
    reported. The composed config is changed in place; returns a sentence for each node that lost
    keys.

    Args:
        config: The composed config.
        overrides: Those of the command line.
        elsewhere: Finds the keys of a part that other files than its own option set; called only
            if a value is refused.
    """
    given = [str(o.key_or_group).replace("/", ".") for o in overrides]
    remarks = []
    for key in _named(overrides):
        node: Any = OmegaConf.select(config, key)
        dropped = _drop(node, [n for n in _refused(node) if not _above(f"{key}.{n}", given)])
        if dropped:
            remarks.append(
                f"{key}: {node._target_} does not take {', '.join(dropped)}; the chosen option's "
                f"values of these are left out."
            )
    for key in _chosen(overrides):
        for name, node in _parts(OmegaConf.select(config, key), key):
            refused = [n for n in _refused(node) if not _above(f"{name}.{n}", given)]
            meant = elsewhere(key) if refused else ()
            dropped = _drop(node, [n for n in refused if _above(f"{name}.{n}", meant)])
            if dropped:
                own = str(node._target_).rpartition(".")[2]
                remarks.append(
                    f"{name}: {own} does not take {', '.join(dropped)}, which the recipe or "
                    f"another option sets; left out."
                )
    return remarks


def _chosen(overrides: Sequence[Override]) -> list[str]:
    """The config keys of the groups of which the command line chooses an option."""
    chosen = [o for o in overrides if o.type == OverrideType.CHANGE]
    # A dotted key without a package is a value.
    named = [o.package or o.key_or_group for o in chosen if o.package or "." not in o.key_or_group]
    return [str(name).replace("/", ".") for name in named]


def _parts(node: object, key: str) -> Iterator[tuple[str, DictConfig]]:
    """The parts in a node of the config, each with its key."""
    if not isinstance(node, DictConfig):
        return
    yield key, node
    for name in [str(name) for name in node if not OmegaConf.is_interpolation(node, str(name))]:
        if not OmegaConf.is_missing(node, name):
            yield from _parts(node[name], f"{key}.{name}")


def _refused(node: object) -> list[str]:
    """The keys of a node that its class does not take."""
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    accepted = _parameters(target) if isinstance(target, str) else None
    if accepted is None or not isinstance(node, DictConfig):
        return []
    return [str(name) for name in node if name not in RESERVED | accepted]


def _above(key: str, keys: Collection[str]) -> bool:
    """Whether one of the keys is this one or below it."""
    return any(f"{other}.".startswith(f"{key}.") for other in keys)


def _drop(node: object, names: list[str]) -> list[str]:
    if isinstance(node, DictConfig):
        with open_dict(node):
            for name in names:
                del node[name]
    return names


def _parameters(target: str) -> set[str] | None:
    """The names of a target's parameters; None if there is no such target."""
    try:
        signature = signature_of(target)
    except UnknownTargetError:
        return None
    if signature is not None:
        return set(signature.parameters)
    # No source text tells; importing is slow, and the last resort.
    module, _, name = target.rpartition(".")
    try:
        return set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return None
