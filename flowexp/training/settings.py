"""How long, how large and on what a training runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowexp.errors import UsageError

__all__ = ["PRECISIONS", "TrainerSettings"]

PRECISIONS = ("32-true", "tf32", "bf16-mixed", "16-mixed")


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Length, batch, numerics and devices of a training.

    Lengths count images, in thousands (kimg), so that they mean the same for every batch size.

    Args:
        max_kimg: Thousands of images to train on.
        batch_size: Images per optimizer step over all devices.
        micro_batch: Images per forward pass and device; None = all at once. Smaller ones need less
            memory and give the same gradient.
        precision: ``32-true``; ``tf32`` (float32 with TF32 matrix products, CUDA); ``bf16-mixed``
            or ``16-mixed`` (the network only: paths, times, losses and weights are not lowered).
        compile: Whether the network is compiled.
        channels_last: Memory layout of convolution weights; None = channels last where there are
            convolutions.
        grad_clip: Largest norm of the gradient, or None.
        nan_to_num: Whether gradients that are not finite are replaced (nan by 0, infinities by 1e5)
            as in EDM's code; otherwise a loss that is not finite stops the run.
        accelerator: ``auto``, ``cpu``, ``cuda`` or another of Lightning's.
        devices: How many devices per node, or which, or ``auto``.
        num_nodes: Number of nodes.
        strategy: Lightning's strategy, for example ``auto`` or ``ddp``.
        log_every: Optimizer steps between logged rows, each a mean over them.
        checkpoint_kimg: Thousands of images between checkpoints; None = only at the end.
        keep_checkpoints: How many numbered checkpoints are kept besides the last; None = all.

    Raises:
        ValueError: A value is out of range.
    """

    max_kimg: float
    batch_size: int
    micro_batch: int | None = None
    precision: str = "32-true"
    compile: bool = False
    channels_last: bool | None = None
    grad_clip: float | None = None
    nan_to_num: bool = False
    accelerator: str = "auto"
    devices: int | str | Sequence[int] = 1
    num_nodes: int = 1
    strategy: str = "auto"
    log_every: int = 50
    checkpoint_kimg: float | None = None
    keep_checkpoints: int | None = 1

    def __post_init__(self) -> None:
        _require("max_kimg", self.max_kimg, "a positive number", self.max_kimg > 0)
        for name in ("batch_size", "num_nodes", "log_every"):
            value = getattr(self, name)
            _require(name, value, "an integer >= 1", value >= 1)
        micro = self.micro_batch
        _require("micro_batch", micro, "an integer >= 1 or null", micro is None or micro >= 1)
        allowed = ", ".join(PRECISIONS)
        _require("precision", self.precision, f"one of {allowed}", self.precision in PRECISIONS)
        for name in ("grad_clip", "checkpoint_kimg"):
            value = getattr(self, name)
            _require(name, value, "a positive number or null", value is None or value > 0)
        keep = self.keep_checkpoints
        _require("keep_checkpoints", keep, "an integer >= 0 or null", keep is None or keep >= 0)

    @property
    def total_steps(self) -> int:
        """Optimizer steps until at least ``max_kimg`` have been seen."""
        return _steps(self.max_kimg, self.batch_size)

    @property
    def checkpoint_steps(self) -> int | None:
        """Optimizer steps between checkpoints, or None."""
        if self.checkpoint_kimg is None:
            return None
        return _steps(self.checkpoint_kimg, self.batch_size)

    def share(self, world_size: int) -> int:
        """Images per step and process.

        Raises:
            UsageError: The batch cannot be shared equally.
        """
        if self.batch_size % world_size:
            raise UsageError(
                f"{self.batch_size} images cannot be shared equally by {world_size} processes.",
                key="trainer.batch_size",
                remedy=f"Choose a multiple of {world_size}.",
            )
        return self.batch_size // world_size


def _steps(kimg: float, batch_size: int) -> int:
    """Steps that show at least ``kimg`` thousand images, but for the product's rounding noise."""
    images = round(kimg * 1000.0, 6)
    return max(1, -int(-images // batch_size))


def _require(name: str, value: object, allowed: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"trainer.{name} is {value!r}; allowed: {allowed}")
