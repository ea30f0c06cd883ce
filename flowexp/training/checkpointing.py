"""What a training checkpoint holds, and which ones are kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.files import write_with_link
from flowexp.runs import RunDirectory

if TYPE_CHECKING:
    from flowexp.training.session import Session

__all__ = ["keep_newest", "snapshot"]


def snapshot(session: "Session") -> dict[str, Any]:
    """Everything that a resumed training needs, in tensors and plain builtins.

    Random states are not among it: every draw is a function of seed and step.
    """
    scaler = session.update.scaler
    return {
        "step": session.step,
        "images": session.images,
        "seed": session.seed,
        "config": session.config,
        "network": session.network.state_dict(),
        "ema": session.averages.state(),
        "optimizer": session.optimizer.state_dict(),
        "window": session.window.state(),
        "scaler": None if scaler is None else scaler.state_dict(),
    }


def keep_newest(run: RunDirectory, *, newest: Path, keep: int | None) -> None:
    """Make ``newest`` the run's ``last.ckpt`` and remove old numbered checkpoints.

    Args:
        run: The run.
        newest: A complete numbered checkpoint.
        keep: How many numbered ones stay; None = all.
    """
    write_with_link(run.checkpoints / "last.ckpt", target=newest)
    if keep is not None:
        numbered = run.numbered_checkpoints()
        for old in numbered[: len(numbered) - keep]:
            old.unlink(missing_ok=True)
