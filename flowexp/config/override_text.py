"""Writing overrides in Hydra's grammar, and commands as they are typed in a shell."""

import math
import re
import shlex
from collections.abc import Sequence

__all__ = ["ShellCommand", "command", "command_on", "override", "sweep", "typed"]

_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_./-]+")
_COUNT = r"(?:0|[1-9](?:_?\d)*)"
_POINT = rf"(?:{_COUNT}\.|{_COUNT}?\.\d(?:_?\d)*)"
_OTHER_THAN_TEXT = re.compile(
    rf"[+-]?(?:(?:{_COUNT}|{_POINT})(?:e[+-]?\d(?:_?\d)*)?|inf|nan)|true|false|null", re.IGNORECASE
)
"""Plain text that Hydra reads as a number, truth value or null."""


def override(key: str, value: object) -> str:
    """``key=value``, quoted as the value needs; a list becomes ``key=[a,b]``."""
    return f"{key}={_value(value)}"


def sweep(key: str, values: Sequence[object]) -> str:
    """``key=a,b``: one job for each value."""
    return f"{key}={','.join(map(_value, values))}"


def typed(key: str, value: object) -> str:
    """An override as it is typed in a shell; what looks like an interpolation is text."""
    plain = value is None or isinstance(value, bool | int | float)
    literal = value if plain else str(value).replace("${", r"\${")
    return shlex.quote(override(key, literal))


class ShellCommand(str):
    """A command line to be typed in a shell."""

    __slots__ = ()


def command(verb: str, *, trust: Sequence[str] = (), **values: object) -> ShellCommand:
    """A command line to be pasted into a shell, with an override for each value.

    ``trust`` names the packages without which it would be refused (``flowexp.config.trust``).
    """
    before = [f"FLOWEXP_TRUST={','.join(trust)}"] if trust else []
    overrides = (typed(key, value) for key, value in values.items())
    return ShellCommand(" ".join([*before, "flowexp", verb, *overrides]))


def command_on(verb: str, folder: str) -> str:
    """A command line to be pasted into a shell, with a bare path: ``flowexp compare sweep``."""
    before = folder.partition("/")[0]
    unlike_override = "=" not in before and folder[:1] not in ("~", "+", "-")
    words = ["flowexp", verb, folder if unlike_override else f"./{folder}"]
    return ShellCommand(shlex.join(words))


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{','.join(_value(item) for item in value)}]"
    if isinstance(value, str):
        plain = _PLAIN_TEXT.fullmatch(value) and not _OTHER_THAN_TEXT.fullmatch(value)
        return value if plain else _quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return str(value)


def _quoted(text: str) -> str:
    """Text in single quotes; backslashes are escaped where they stand before a quote."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"
