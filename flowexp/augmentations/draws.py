"""Where the random numbers of an augmentation come from, and which rows they change."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

__all__ = ["Draws", "GeneratorDraws", "Transform"]


class Draws(Protocol):
    """Random numbers, one per row of the batch.

    Every method returns a tensor (*count, B) on the device of the generator.
    """

    def integers(self, high: int) -> Tensor:
        """Uniform on ``0 .. high - 1``, (B,), int64."""

    def uniform(self, *count: int) -> Tensor:
        """Uniform on [0, 1), (*count, B), float64 with float32's resolution."""

    def normal(self, *count: int) -> Tensor:
        """Standard normal, (*count, B), float64 with float32's resolution."""


class GeneratorDraws(Draws):
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
        drawn = torch.randint(high, (self.total,), generator=self.rng, device=self.rng.device)
        return drawn[self.own]

    def uniform(self, *count: int) -> Tensor:
        drawn = torch.rand(*count, self.total, generator=self.rng, device=self.rng.device)
        return drawn[..., self.own].to(torch.float64)

    def normal(self, *count: int) -> Tensor:
        drawn = torch.randn(*count, self.total, generator=self.rng, device=self.rng.device)
        return drawn[..., self.own].to(torch.float64)


@dataclass(frozen=True, kw_only=True)
class Transform:
    """A random change that happens to some rows of a batch.

    Args:
        probability: Share of rows that are changed; at or above 1 all of them.

    Attributes:
        columns: Number of label columns.
    """

    probability: float
    columns: ClassVar[int] = 1

    def gated(self, value: Tensor, draws: Draws) -> Tensor:
        """``value`` (..., B), or 0 in the rows that are not changed; takes one uniform draw."""
        return gated(value, draws, probability=self.probability)


def gated(value: Tensor, draws: Draws, *, probability: float) -> Tensor:
    """``value`` (..., B) in the rows where a uniform draw lies below ``probability``, else 0."""
    return torch.where(draws.uniform() < probability, value, torch.zeros_like(value))
