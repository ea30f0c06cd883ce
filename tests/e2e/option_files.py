"""The nodes of options as their files state them, without Hydra."""

import functools
from typing import NamedTuple

from omegaconf import OmegaConf

from flowexp.config import conf_dir

Choice = tuple[str, str]
Replaced = tuple[tuple[str, str | None], ...]


@functools.cache
def stated(group: str, name: str, replaced: Replaced = ()) -> tuple[dict, frozenset[str]]:
    """An option's file without Hydra, whose compositions take 0.1 s: its node, and the keys of the
    parts within it that can be chosen. ``replaced`` are choices from outside by these keys:
    ``leg``, ``leg.schedule``.
    """
    raw = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"), resolve=False)
    lines = raw.pop("defaults", [])
    entries = [entry_of(group, line) for line in lines if line != "_self_"]
    choices = {e.key: e.option for e in entries if e.replaces} | dict(replaced)
    node, keys = {}, set()
    for line in lines if "_self_" in lines else [*lines, "_self_"]:
        entry = entry_of(group, line)
        if line == "_self_":
            node = merged(node, raw)
        elif entry.key is None:
            inherited, theirs = stated(group, entry.option, tuple(choices.items()))
            node, keys = merged(node, inherited), keys | theirs
        elif not entry.replaces:
            option, inner = choices.get(entry.key, entry.option), f"{entry.key}."
            below = ((k.removeprefix(inner), v) for k, v in choices.items() if k.startswith(inner))
            part = option and stated(entry.group, option, tuple(below))[0]
            node, keys = merged(node, nested(entry.key, part)), keys | {entry.key}
    return node, frozenset(keys)


def nested(key: str, value: dict | None) -> dict:
    """``{"a": {"b": value}}`` of the key ``a.b``."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


class Entry(NamedTuple):
    """A line of a defaults list; without a key it is an option that the file inherits."""

    key: str | None
    group: str
    option: str | None
    replaces: bool = False


def entry_of(group: str, line: str | dict[str, str | None]) -> Entry:
    """A line in a file of a group: ``name``, ``part: name``, ``override /group@part: name``."""
    if isinstance(line, str):
        return Entry(None, group, line)
    ((named, option),) = line.items()
    where, _, key = named.removeprefix("override ").partition("@")
    inner = where[1:] if where.startswith("/") else f"{group}/{where}"
    return Entry(key or where.replace("/", "."), inner, option, named.startswith("override "))


def merged(below: dict, above: dict) -> dict:
    """Two nodes as one, key by key."""
    both = {
        k: merged(below[k], v)
        for k, v in above.items()
        if isinstance(below.get(k), dict) and isinstance(v, dict)
    }
    return {**below, **above, **both}


@functools.cache
def node_of(choice: Choice) -> dict:
    """The unresolved node of an option."""
    return stated(*choice)[0]
