"""Where the rows of a training are copied to; ``metrics.jsonl`` is written without any logger."""

from collections.abc import Mapping
from typing import Any, Protocol

from flowexp.runs import RunDirectory

__all__ = ["Logger"]


class Logger(Protocol):
    """A destination for rows; used by the first process only."""

    def start(self, run: RunDirectory, *, config: Mapping[str, Any], step: int) -> None:
        """Begin, or continue after ``step``: rows beyond it will come again.

        Args:
            run: The run; ``metrics.jsonl`` holds the rows up to ``step``.
            config: The resolved configuration.
            step: Steps taken so far.
        """

    def log(self, row: Mapping[str, Any]) -> None:
        """Copy a row: ``step``, ``kimg`` and named numbers."""

    def finish(self, *, failed: bool) -> None:
        """Hand everything over and close; called however the training ended."""
