"""Weights of a finished or running training, for everything that evaluates."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.runs.checkpoint_file import read_checkpoint
from flowexp.runs.run_directory import RunDirectory

__all__ = ["RAW", "LoadedWeights", "load_weights", "stored_weights"]

RAW = "raw"
"""Name of the weights without averaging."""

_SHOWN_KEYS = 3


@dataclass(frozen=True)
class LoadedWeights:
    """Which weights a network has been given.

    Attributes:
        step: Optimizer steps behind them.
        kimg: Thousands of images behind them.
        ema: Name of the average, or None for the raw weights.
        sha256: Of the checkpoint file.
        path: The checkpoint file.
    """

    step: int
    kimg: float
    ema: str | None
    sha256: str
    path: Path

    @property
    def name(self) -> str:
        """Name of the average, or ``raw``."""
        return self.ema or RAW


def load_weights(
    run: RunDirectory, network: nn.Module, *, ema: str | None, checkpoint: str = "last"
) -> LoadedWeights:
    """Load weights of a run into a network of the same architecture, in place.

    Args:
        run: The run.
        network: What receives the weights; stays on its device.
        ema: Name of the average, or None for the raw weights.
        checkpoint: ``last``, a step number, or a file name; see :meth:`RunDirectory.checkpoint`.

    Raises:
        UsageError: Unknown checkpoint or average, unreadable file, or another architecture.
    """
    state, loaded = stored_weights(run, ema=ema, checkpoint=checkpoint)
    _refuse_another_network(network, state, loaded.path)
    network.load_state_dict(state)
    return loaded


def stored_weights(
    run: RunDirectory, *, ema: str | None, checkpoint: str = "last"
) -> tuple[dict[str, Tensor], LoadedWeights]:
    """The state dict of a run's network, and which weights it holds.

    Args:
        run: The run.
        ema: Name of the average, or None for the raw weights.
        checkpoint: ``last``, a step number, or a file name; see :meth:`RunDirectory.checkpoint`.

    Raises:
        UsageError: Unknown checkpoint or average, or unreadable file.
    """
    path = run.checkpoint(checkpoint)
    content = read_checkpoint(path, mmap=True)
    state: dict[str, Tensor] = dict(content["network"])
    if ema is not None:
        if ema not in content["ema"]:
            there = ", ".join(sorted(content["ema"])) or "none"
            raise UsageError(
                f"the run {run.path} has no average {ema!r}.",
                key="ema",
                remedy=f"It has: {there}; null gives the raw weights.",
            )
        state |= content["ema"][ema]
    return state, LoadedWeights(
        step=content["step"],
        kimg=content["images"] / 1000.0,
        ema=ema,
        sha256=file_sha256(path),
        path=path,
    )


def _refuse_another_network(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = [f"{name} is missing in the file" for name in own.keys() - stored.keys()]
    wrong += [f"{name} is not in the network" for name in stored.keys() - own.keys()]
    wrong += [
        f"{name} is {stored[name]}, the network has {own[name]}"
        for name in own.keys() & stored.keys()
        if own[name] != stored[name]
    ]
    if wrong:
        wrong.sort()
        rest = f"; and {len(wrong) - _SHOWN_KEYS} more" if len(wrong) > _SHOWN_KEYS else ""
        raise UsageError(
            f"the weights in {path} belong to another network ("
            f"{'; '.join(wrong[:_SHOWN_KEYS])}{rest}).",
            key="network",
            remedy="Use the network of the run's config.yaml.",
        )
