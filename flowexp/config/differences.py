"""Which keys of two stored configs differ."""

from collections.abc import Mapping
from typing import Any

from flowexp.config.later_options import without_later_options
from flowexp.config.renamed import present
from flowexp.tree import leaves, select

__all__ = [
    "ABSENT",
    "changes_in_words",
    "differing",
    "in_words",
    "network_differences",
    "shown_value",
]

Config = Mapping[str, Any]
Values = tuple[Any, Any]

ABSENT = "(absent)"
_MOST = 3
_NOT_OF_SHAPE = ("dropout", "label_dropout", "noise")
_NEW_SCALARS: tuple[object, ...] = ([], ABSENT)  # what a network without them stored


def differing(old: Config, new: Config) -> dict[str, Values]:
    """Keys whose values differ, each with its value in both configs, or :data:`ABSENT`.

    Renamed classes are equal, and options added to a part later count as present with their
    default.
    """
    own = present(new)
    before, after = (dict(leaves(without_later_options(present(c), user=own))) for c in (old, new))
    keys = sorted(before.keys() | after.keys())
    pairs = {key: (before.get(key, ABSENT), after.get(key, ABSENT)) for key in keys}
    return {key: values for key, values in pairs.items() if values[0] != values[1]}


def network_differences(own: Config, stored: Config) -> dict[str, Values]:
    """Keys in which the networks of two configs differ: the value here, and the stored one.

    The inner network of a wrapper, such as a low-rank adapter, is compared. Scalars that the stored
    network did not have are no difference: its weights fit.
    """
    here, there = own.get("network"), stored.get("network")
    key, inner = "network", select(here, "network")
    if isinstance(inner, Mapping) and not isinstance(select(there, "network"), Mapping):
        key, here = "network.network", inner
    found = differing({key: there}, {key: here})
    target = found.get(f"{key}._target_")
    if target is not None:
        return {f"{key}._target_": (target[1], target[0])}
    return {
        name: (now, then)
        for name, (then, now) in found.items()
        if name.rpartition(".")[2] not in _NOT_OF_SHAPE
        and not (name.endswith(".scalars") and then in _NEW_SCALARS)
    }


def in_words(differences: Mapping[str, Values], *, run: str) -> str:
    """``network.dim is 16 here and 32 in RUN``, for the first few keys."""
    named = []
    for key, values in list(differences.items())[:_MOST]:
        here, there = (shown_value(key, value) for value in values)
        named.append(f"{key.removesuffix('._target_')} is {here} here and {there} in {run}")
    rest = len(differences) - len(named)
    return ", ".join(named) + (f", and {rest} more keys differ" if rest > 0 else "")


def changes_in_words(changed: Mapping[str, Values], *, most: int) -> str:
    """``seed: 0 -> 1; path: VP -> Linear``; of many keys, how many more there are."""
    named = [
        f"{key}: {shown_value(key, old)} -> {shown_value(key, new)}"
        for key, (old, new) in list(changed.items())[:most]
    ]
    rest = len(changed) - len(named)
    return "; ".join(named) + (f"; and {rest} more" if rest > 0 else "")


def shown_value(key: str, value: object) -> str:
    """A config value as text; a class by its name without the module."""
    text = "null" if value is None else str(value)
    return text.rpartition(".")[2] if key.endswith("_target_") else text
