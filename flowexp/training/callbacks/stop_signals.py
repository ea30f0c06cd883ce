"""Signals that stop a training: it finishes its step, writes a checkpoint and says so."""

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Trainer

from flowexp.errors import StoppedError
from flowexp.training.callbacks.closing import ClosingCallback

if TYPE_CHECKING:
    from flowexp.training.module import FlowModule

__all__ = ["StopSignals", "TrainingInterrupted"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(StoppedError):  # noqa: N818 -- a request, not an error
    """A signal stopped a training; its state is in a checkpoint."""


class StopSignals(ClosingCallback):
    """Remembers SIGINT and SIGTERM until the step is over; a second SIGINT stops at once.

    Handlers exist in the main thread only; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._main = threading.current_thread() is threading.main_thread()
        self._before: dict[signal.Signals, Any] = {}
        if self._main:
            self._before = {number: signal.getsignal(number) for number in _SIGNALS}

    def on_train_start(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        """Start to listen, after Lightning has set its own handlers."""
        if self._main:
            for number in _SIGNALS:
                signal.signal(number, self._handle)

    def on_train_batch_end(self, trainer: Trainer, pl_module: "FlowModule", *_: object) -> None:
        """Stop after this step if a signal came; several processes agree where they log.

        Raises:
            TrainingInterrupted: A checkpoint was written.
        """
        if trainer.world_size == 1:
            stop = self.received is not None
        else:
            at_row = pl_module.step % pl_module.settings.log_every == 0
            stop = at_row and self._received_by_any(pl_module.device)
        if not stop:
            return
        pl_module.checkpoints.save(trainer, pl_module)
        name = self.received.name if self.received else "another process"
        raise TrainingInterrupted(
            f"stopped by {name} at step {pl_module.step} ({pl_module.kimg:g} kimg); the same "
            f"command continues from {pl_module.run.latest_checkpoint()}."
        )

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _received_by_any(self, device: torch.device) -> bool:
        """Whether any process received a signal; every process must call this together."""
        flag = torch.tensor(float(self.received is not None), device=device)
        torch.distributed.all_reduce(flag)
        return bool(flag > 0)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        # A table that Ctrl-C stops sends SIGTERM after the terminal's SIGINT.
        self.received = self.received or signal.Signals(number)
