"""Where the random numbers of an augmentation come from, and which rows they change."""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

__all__ = ["GeneratorDraws", "RowDraws", "Transform", "Turn"]


class RowDraws(Protocol):
    """Random numbers, one per row of the batch, on the device of the generator."""

    def integers(self, high: int) -> Tensor:
        """Uniform on ``0 .. high - 1``, (B,), int64."""

    def uniform(self, *count: int) -> Tensor:
        """Uniform on [0, 1), (*count, B), float64 with float32's resolution."""

    def normal(self, *count: int) -> Tensor:
        """Standard normal, (*count, B), float64 with float32's resolution."""


class GeneratorDraws(RowDraws):
    """Draws from a generator for the global batch, of which process ``rank`` uses its own rows.

    Numbers are drawn in float32 and widened, so that the matrices made of them are float64.
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


@dataclass(frozen=True)
class Transform:
    """A random change of the share ``min(1, multiplier p)`` of rows, with ``columns`` labels."""

    multiplier: float
    p: float
    columns: ClassVar[int] = 1

    def gated(self, value: Tensor, draws: RowDraws, *, share: float | None = None) -> Tensor:
        """``value`` (..., B), or 0 in the rows that are not changed; takes one uniform draw."""
        share = self.multiplier * self.p if share is None else share
        return torch.where(draws.uniform() < share, value, torch.zeros_like(value))


@dataclass(frozen=True, kw_only=True)
class Turn(Transform):
    """A turn by w, uniform up to ``largest`` half turns either way; labels ``cos w - 1, sin w``."""

    columns = 2
    largest: float

    def angles(self, draws: RowDraws) -> tuple[Tensor, Tensor]:
        """Angles (B,) and labels (B, 2)."""
        w = self.gated((draws.uniform() * 2.0 - 1.0) * (math.pi * self.largest), draws)
        # -2 sin^2(w/2) is cos w - 1 without cancellation.
        return w, torch.stack([-2.0 * torch.sin(0.5 * w) ** 2, torch.sin(w)], dim=1)
