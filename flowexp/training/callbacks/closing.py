"""Callbacks that hold something open: a file, a terminal."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pytorch_lightning import Callback, Trainer

if TYPE_CHECKING:
    from flowexp.training.module import FlowModule

__all__ = ["ClosingCallback"]


class ClosingCallback(Callback, ABC):
    """A callback that releases something at the end, which Lightning reports by either hook."""

    @abstractmethod
    def close(self) -> None:
        """Release it, if it is held; called however the training ended."""

    def on_exception(
        self, trainer: Trainer, pl_module: "FlowModule", exception: BaseException
    ) -> None:
        self.close()

    def teardown(self, trainer: Trainer, pl_module: "FlowModule", stage: str) -> None:
        self.close()
