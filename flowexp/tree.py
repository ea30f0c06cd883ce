"""Walking the tree of a plain config: nested mappings, sequences and scalars."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["digest", "leaves", "mapped", "nodes", "plain", "select", "without"]


def plain(value: Any) -> Any:  # noqa: ANN401 -- any configuration value
    """A configuration value as YAML gives it back: mappings to dicts, sequences to lists."""
    return mapped(value, lambda leaf: leaf)


def digest(value: object) -> str:
    """sha256 (hex) of a tree as JSON with sorted keys; other objects count by their text."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:  # noqa: ANN401 -- any config value
    """The tree with ``change`` applied to every scalar; mappings become dicts, sequences lists."""
    if isinstance(value, Mapping):
        return {str(key): mapped(item, change) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [mapped(item, change) for item in value]
    return change(value)


def nodes(value: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:  # noqa: ANN401
    """Every mapping of a tree at ``key`` with its dotted key, outermost first.

    Keys are like ``metric.fd.extractor`` and ``losses[0]``.
    """
    if isinstance(value, Mapping):
        yield key, value
        for name, item in value.items():
            yield from nodes(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from nodes(item, f"{key}[{number}]")


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Every value of a tree at ``key`` with its dotted key.

    A sequence and an empty mapping are one value.
    """
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from leaves(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def select(value: Any, key: str) -> Any:  # noqa: ANN401 -- any configuration value
    """The value at a dotted key, or None where a mapping on the way lacks it."""
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def without(value: Any, keys: Collection[str], key: str = "") -> Any:  # noqa: ANN401
    """The tree at ``key`` without the mappings' entries at some dotted ``keys``.

    Entries of mappings inside sequences cannot be named.
    """
    if not isinstance(value, Mapping):
        return value
    full = {name: f"{key}.{name}" if key else str(name) for name in value}
    return {n: without(value[n], keys, full[n]) for n in value if full[n] not in keys}
