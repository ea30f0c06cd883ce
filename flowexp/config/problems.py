"""What a configuration check reports."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowexp.errors import UsageError

__all__ = ["ConfigError", "Problem", "refusal"]


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration.

    Attributes:
        key: The config key or group.
        text: One sentence that names the value and what is wrong with it.
        remedy: How to fix it.
    """

    key: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.text} {self.remedy}".rstrip()


class ConfigError(UsageError):
    """All problems of a configuration at once.

    Args:
        problems: At least one problem.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


def refusal(error: Exception, *, key: str, arguments: Mapping[str, Any]) -> Problem:
    """What a constructor refused.

    Args:
        error: What it raised. A message that begins with the name of an argument (``steps is 0``,
            ``steps=0``) is about that argument.
        key: Where the part stands in the config.
        arguments: Its config node.
    """
    if isinstance(error, UsageError):
        return Problem(error.key or key, error.problem, error.remedy or "")
    sentence = str(error).splitlines()[0] if str(error) else type(error).__name__
    sentence = sentence.removeprefix(f"{key}.")
    named = re.match(r"(\w+)(?: is |=)", sentence)
    if named is not None and named[1] in arguments:
        key = f"{key}.{named[1]}"
    return Problem(key, f"{sentence.rstrip('.')}.")
