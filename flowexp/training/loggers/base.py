"""What this project's loggers add to Lightning's: they continue a run exactly."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import Logger

from flowexp.runs import RunDirectory

__all__ = ["RunLogger"]


class RunLogger(Logger):
    """A Lightning logger that writes into the run directory; used by the first process only.

    Lightning's own loggers work as well, but append what a resumed training repeats.
    """

    @abstractmethod
    def start(self, run: RunDirectory, *, config: Mapping[str, Any], step: int) -> None:
        """Begin, or continue after ``step``: later rows will come again.

        The run's ``metrics.jsonl`` holds the rows up to ``step``.
        """

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Nothing: :meth:`start` has the configuration."""
