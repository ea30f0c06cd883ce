"""The protocol of augmentations: changed images, and labels that describe the change."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from flowexp.requirements import Part, Parts, Unmet

__all__ = ["Augmentation", "NoAugmentation", "GeneratorDraws", "RowDraws", "Transform", "Turn"]


class Augmentation(Part, ABC):
    """A random change of training images, on which the network is conditioned.

    Constructors raise ``ValueError`` for an argument outside the range that their docstring states.
    The label is the network's condition ``augment_labels``; zeros mean "unchanged" and are used in
    sampling, so the changes do not leak into samples.

    Attributes:
        augment_dim: Number of label columns, equal to the network's ``augment_dim``; 0 = no labels.
        changes_images: Whether images may come back changed.
    """

    augment_dim: int
    changes_images: bool = True

    @abstractmethod
    def __call__(
        self, images: Tensor, *, rng: torch.Generator, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Changed images and their labels.

        Args:
            images: (B, C, H, W), float32 in [-1, 1]; not modified.
            rng: Generator of all draws. One on the CPU gives the same draws for every device, and
                saves a synchronisation on an accelerator.
            rank: This process. Draws are made for the global batch of ``world_size * B`` rows;
                every process uses its own.
            world_size: Number of processes.

        Returns:
            Images, possibly beyond [-1, 1], and labels (B, augment_dim), float32.
        """

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network that expects this augmentation's labels."""
        expected = parts.network.augment_dim
        if expected != self.augment_dim:
            yield Unmet(
                "network.augment_dim",
                f"{type(self).__name__} makes {self.augment_dim} label columns, but the network "
                f"expects {expected}.",
                f"Set network.augment_dim={self.augment_dim}.",
            )


class NoAugmentation(Augmentation):
    """Unchanged images, and labels of zeros; draws nothing.

    Args:
        augment_dim: Number of label columns, >= 0: that of a network which was trained with an
            augmentation and continues without one; else 0.
    """

    changes_images = False

    def __init__(self, *, augment_dim: int = 0) -> None:
        if augment_dim < 0:
            raise ValueError(f"augment_dim is {augment_dim}; expected at least 0")
        self.augment_dim = augment_dim

    def __call__(
        self, images: Tensor, *, rng: torch.Generator, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        return images, images.new_zeros(len(images), self.augment_dim)


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
