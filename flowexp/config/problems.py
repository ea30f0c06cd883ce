"""What a configuration check reports."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowexp.errors import UsageError

__all__ = ["ConfigError", "Problem"]


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
