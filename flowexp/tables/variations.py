"""One entry of a file written for several: texts with names in braces, and the values for them."""

import re
from collections.abc import Mapping

__all__ = ["filled", "names_in"]

_NAME = re.compile(r"\{(\w+)\}")


def names_in(node: object) -> set[str]:
    """The names in braces in all texts of ``node``."""
    if isinstance(node, str):
        return set(_NAME.findall(node))
    if isinstance(node, Mapping):
        return names_in(list(node.items()))
    return set().union(*map(names_in, node)) if isinstance(node, list | tuple) else set()


def filled(node: object, values: Mapping[str, object]) -> object:
    """``node`` with every ``{name}`` in its texts replaced by the value of that name.

    A text that is nothing but ``{name}`` becomes the value itself, a number or a list, say. In a
    list it stands for none, one or several entries: null is left out, a list is inserted.

    Raises:
        KeyError: A name has no value.
    """
    if isinstance(node, dict):
        return {filled(key, values): filled(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [entry for part in node for entry in _entries(part, values)]
    if not isinstance(node, str):
        return node
    whole = _NAME.fullmatch(node)
    return values[whole[1]] if whole else _NAME.sub(lambda m: _text(values[m[1]]), node)


def _entries(part: object, values: Mapping[str, object]) -> list[object]:
    """What an entry of a list stands for."""
    value = filled(part, values)
    if value is part or not isinstance(part, str):
        return [value]
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: object) -> str:
    """As YAML and the command line write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
