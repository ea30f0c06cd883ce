"""What happens beside the steps of a training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowexp.training.session import Session

__all__ = ["Callback"]


class Callback:
    """Hooks that the first process calls; a subclass overrides what it needs.

    A hook sees the whole session and must leave weights, optimizer and counters as they are. Random
    draws of its own come from ``flowexp.seeding``; the global generators are seeded anew for every
    step, so that using them does not change the training.
    """

    def on_start(self, session: "Session") -> None:
        """Before the first step, after a checkpoint was read."""

    def on_step(self, session: "Session") -> None:
        """After every step; called so often that it must cost next to nothing."""

    def on_row(self, session: "Session", row: Mapping[str, Any]) -> None:
        """After a row of metrics was recorded."""

    def on_end(self, session: "Session") -> None:
        """After the last step and the last checkpoint."""

    def close(self) -> None:
        """At the very end, however the training ended."""
