"""Walking the tree of a plain config: nested mappings, sequences and scalars."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["mapped", "nodes", "plain"]


def plain(value: Any) -> Any:  # noqa: ANN401 -- any configuration value
    """A configuration value as YAML gives it back: mappings to dicts, sequences to lists."""
    return mapped(value, lambda leaf: leaf)


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:  # noqa: ANN401 -- any config value
    """The tree with ``change`` applied to every scalar; mappings become dicts, sequences lists."""
    if isinstance(value, Mapping):
        return {str(key): mapped(item, change) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [mapped(item, change) for item in value]
    return change(value)


def nodes(value: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:  # noqa: ANN401
    """Every mapping with its dotted key (``metric.fd.extractor``, ``losses[0]``), outermost first.

    Args:
        value: The tree.
        key: Where it stands.
    """
    if isinstance(value, Mapping):
        yield key, value
        for name, item in value.items():
            yield from nodes(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from nodes(item, f"{key}[{number}]")
