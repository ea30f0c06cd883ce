"""Where the random numbers of an augmentation come from."""

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Draws", "GeneratorDraws", "gated"]


class Draws(Protocol):
    """Random numbers in the order in which they are asked for, one per row of the batch.

    Every method returns a tensor (*count, B) on the CPU or wherever the generator lives.
    """

    def integers(self, high: int) -> Tensor:
        """Uniform on ``0 .. high - 1``, (B,), int64."""

    def uniform(self, *count: int) -> Tensor:
        """Uniform on [0, 1), (*count, B), float64 with float32's resolution."""

    def normal(self, *count: int) -> Tensor:
        """Standard normal, (*count, B), float64 with float32's resolution."""


class GeneratorDraws:
    """Draws from a generator, for a process's share of the global batch.

    Numbers are drawn in float32 and widened, so that the matrices made of them are float64.

    Args:
        rng: The generator.
        rows: Rows of this process.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self, rng: torch.Generator, *, rows: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.rng = rng
        self.total = rows * world_size
        self.own = slice(rank * rows, (rank + 1) * rows)

    def integers(self, high: int) -> Tensor:
        """Uniform on ``0 .. high - 1``, (B,), int64."""
        drawn = torch.randint(high, (self.total,), generator=self.rng, device=self.rng.device)
        return drawn[self.own]

    def uniform(self, *count: int) -> Tensor:
        """Uniform on [0, 1), (*count, B), float64."""
        drawn = torch.rand(*count, self.total, generator=self.rng, device=self.rng.device)
        return drawn[..., self.own].to(torch.float64)

    def normal(self, *count: int) -> Tensor:
        """Standard normal, (*count, B), float64."""
        drawn = torch.randn(*count, self.total, generator=self.rng, device=self.rng.device)
        return drawn[..., self.own].to(torch.float64)


def gated(value: Tensor, draws: Draws, *, probability: float) -> Tensor:
    """``value`` in the rows where a uniform draw lies below ``probability``, 0 in the others.

    Args:
        value: (..., B); all numbers of a row share the gate.
        draws: Where the gate's draw comes from.
        probability: At or above 1 every row keeps its value.
    """
    keep = draws.uniform() < probability
    return torch.where(keep, value, torch.zeros_like(value))
