"""Rows as TensorBoard scalars."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowexp.runs import RunDirectory
from flowexp.training.loggers.base import RunLogger

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["TensorBoardLogger"]


class TensorBoardLogger(RunLogger):
    """Scalars over steps in ``tensorboard/`` of the run directory, flushed every few seconds."""

    def __init__(self, *, flush_seconds: int = 30) -> None:
        self.flush_seconds = flush_seconds
        self._writer: SummaryWriter | None = None

    def start(self, run: RunDirectory, *, config: Mapping[str, Any], step: int) -> None:
        """Open the writer; scalars beyond ``step`` from before a kill are hidden."""
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(
            str(run.path / "tensorboard"), purge_step=step + 1, flush_secs=self.flush_seconds
        )

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)

    def finalize(self, status: str) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
