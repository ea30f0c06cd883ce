"""What a configuration check reports, and the nearest valid name for a misspelt one."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from flowexp.errors import UsageError

__all__ = ["ConfigError", "Problem", "did_you_mean", "nearest", "refusal", "refuse_all"]


@dataclass(frozen=True)
class Problem:
    """One thing wrong at a config key or group: a sentence with the value, and how to fix it.

    ``refuses`` is False for a warning. ``between_parts`` marks two parts that are each valid but do
    not fit together.
    """

    key: str
    text: str
    remedy: str = ""
    refuses: bool = True
    between_parts: bool = False

    def __str__(self) -> str:
        return f"{self.key}: {self.text} {self.remedy}".rstrip()


class ConfigError(UsageError):
    """All problems of a configuration at once; there is at least one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


def refusal(
    error: Exception, *, key: str, arguments: Mapping[str, Any] = MappingProxyType({})
) -> Problem:
    """What the constructor of a part at ``key``, with the config node ``arguments``, refused.

    A message that begins with an argument's name (``steps is 0``, ``steps=0``) is about it, and so
    is one that has the name, or the value, of one argument alone.
    """
    if isinstance(error, UsageError):
        return Problem(str(error.key or key), error.problem, error.remedy or "")
    sentence = str(error).splitlines()[0] if str(error) else type(error).__name__
    sentence = sentence.removeprefix(f"{key}.")
    # ``hidden=128, depth=-1`` is about either.
    named = re.match(r"(\w+)(?: is |=)(?!\S+, \w+=)", sentence)
    about = named[1] if named is not None and named[1] in arguments else _about(sentence, arguments)
    text = f"{sentence.rstrip('.')}."
    # Other libraries' constructors say what is wrong, but not what would be right.
    remedy = "Give another value." if text.startswith("Invalid ") else ""
    return Problem(key if about is None else f"{key}.{about}", text, remedy)


def _about(sentence: str, arguments: Mapping[str, Any]) -> str | None:
    """The argument that a sentence names or, failing that, whose value it names."""
    words = set(re.findall(r"-?[\w.]*\w", sentence))
    names = [name for name in arguments if name in words]
    if names:
        return names[0] if len(names) == 1 else None
    holders = [
        name
        for name, value in arguments.items()
        if not name.startswith("_")
        and words & {str(v) for v in (value if isinstance(value, list) else [value])}
    ]
    return holders[0] if len(holders) == 1 else None


def refuse_all(*steps: Callable[[], object]) -> None:
    """Run every step, and report all their errors at the end.

    Raises:
        ConfigError: At least one step raised a :class:`~flowexp.errors.UsageError`.
    """
    problems = []
    for step in steps:
        try:
            step()
        except UsageError as error:
            problems.append(refusal(error, key=""))
    if problems:
        raise ConfigError(problems)


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name closest to ``name``, or None if nothing is close."""
    close = difflib.get_close_matches(name, sorted(set(valid)), n=1, cutoff=0.5)
    return close[0] if close else None


def did_you_mean(name: str, valid: Iterable[str], *, most: int = 24) -> str:
    """A sentence with the nearest valid name, and the choices where they are few."""
    choices = sorted(set(valid))
    guess = nearest(name, choices)
    sentence = f"Did you mean {guess}? " if guess else ""
    if 0 < len(choices) <= most:
        sentence += f"Possible: {', '.join(choices)}."
    none = f"Choose one of {len(choices)}." if choices else "Nothing can be chosen here."
    return sentence.strip() or none
