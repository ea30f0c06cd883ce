"""Signals that stop a training: it finishes its step, writes a checkpoint and says so."""

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import torch
from pytorch_lightning import Callback, Trainer

from flowexp.errors import StoppedError
from flowexp.processes import STOP_SIGNALS, is_first_process, several_started
from flowexp.runs import RunDirectory

if TYPE_CHECKING:
    from flowexp.training.module import FlowModule

__all__ = ["StopSignals", "TrainingInterrupted"]

# Obeyed even where a shell that started the process in the background has them ignored.
_ALWAYS = (signal.SIGINT, signal.SIGTERM)
# torchrun passes a Ctrl-C on to processes that got it from the terminal already.
_PASSED_ON_SECONDS = 0.3


class TrainingInterrupted(StoppedError):  # noqa: N818 -- a request, not an error
    """A signal stopped a training; its state is in a checkpoint."""


class StopSignals(Callback):
    """Remembers a signal until the step is over; a further Ctrl-C (SIGINT) stops at once.

    Signals are listened to within ``with``, in the main thread only. SIGHUP and those of schedulers
    stay ignored where they are (``nohup``). Where another handler is in place, such as that of
    submitit, which puts a job into the queue again, it is called after the checkpoint; if it
    returns, the training goes on.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.received: signal.Signals | None = None
        self._run = run
        self._at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                before = signal.getsignal(number)
                # None: set by another language; a request that Python cannot put back.
                if before is not None and (before != signal.SIG_IGN or number in _ALWAYS):
                    self._before[number] = before
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def on_train_batch_end(self, trainer: Trainer, pl_module: "FlowModule", *_: object) -> None:
        """Stop after this step if a signal came; several processes agree where they log.

        Raises:
            TrainingInterrupted: A checkpoint was written.
        """
        if trainer.world_size == 1:
            save, stop = self.received is not None, self._stops
        else:
            at_row = pl_module.step % pl_module.settings.log_every == 0
            save, stop = self._asked_of_any(pl_module.device) if at_row else (False, False)
        if not save:
            return
        pl_module.checkpoints.save(trainer, pl_module)
        # A process that ended earlier would have the first killed while it still writes.
        trainer.strategy.barrier()
        if not stop:
            received, self.received = self.received, None
            if received is not None:
                self._before[received](received, None)
            return
        name = self.received.name if self.received else "another process"
        raise TrainingInterrupted(
            f"stopped by {name} at step {pl_module.step} ({pl_module.kimg:g} kimg). "
            f"It continues from there with {pl_module.run.continued_by}"
        )

    @property
    def _stops(self) -> bool:
        """Whether the signal received ends the training, rather than another handler."""
        return self.received is not None and not _foreign(self._before.get(self.received))

    def _asked_of_any(self, device: torch.device) -> tuple[bool, bool]:
        """Whether any process shall save, and stop; every process must call this together."""
        flags = torch.tensor([self.received is not None, self._stops], device=device).float()
        torch.distributed.all_reduce(flags)
        save, stop = (flags > 0).tolist()
        return save, stop

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._at = signal.Signals(number), now
            _say(f"{self.received.name}: saving a checkpoint; press Ctrl-C again to stop without.")
            return
        # A table that Ctrl-C stops sends SIGTERM after the terminal's SIGINT.
        if number != signal.SIGINT:
            return
        if several_started() and now - self._at < _PASSED_ON_SECONDS:
            return
        # Once more ends the process, whatever it is doing.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        checkpoint = self._run.latest_checkpoint()
        _say("SIGINT: stopping at once.")
        raise TrainingInterrupted(
            "stopped at once by a further SIGINT. "
            + (
                f"It continues from {checkpoint.name} with {self._run.continued_by}"
                if checkpoint
                else f"{self._run.path} holds no checkpoint yet, so it would start anew."
            )
        )


def _foreign(handler: Any) -> bool:  # noqa: ANN401 -- what signal.getsignal returns
    return callable(handler) and handler is not signal.default_int_handler


def _say(text: str) -> None:
    """Print a line even if the signal came while another was being printed."""
    if is_first_process():
        with suppress(OSError):
            os.write(2, f"\nflowexp: {text}\n".encode())
