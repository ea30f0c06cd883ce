"""Signals that ask a training to stop: it finishes its step, writes a checkpoint and says so."""

import signal
import threading
from types import FrameType
from typing import Any

import torch

from flowexp.errors import StoppedError

__all__ = ["Interruption", "TrainingInterrupted"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(StoppedError):  # noqa: N818 -- a request, not an error
    """A training was asked to stop; its state is in a checkpoint."""


class Interruption:
    """Remembers SIGINT and SIGTERM until the step is over; a second SIGINT stops at once.

    Handlers exist in the main thread only; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._main = threading.current_thread() is threading.main_thread()
        self._before: dict[signal.Signals, Any] = {}
        if self._main:
            self._before = {number: signal.getsignal(number) for number in _SIGNALS}

    def install(self) -> None:
        """Start to listen."""
        if self._main:
            for number in _SIGNALS:
                signal.signal(number, self._handle)

    def restore(self) -> None:
        """Put the handlers back that were there when this object was made."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def agreed(self, device: torch.device) -> bool:
        """Whether any process has been asked to stop; every process must call this together."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self.received is not None
        flag = torch.tensor(float(self.received is not None), device=device)
        torch.distributed.all_reduce(flag)
        return bool(flag > 0)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
