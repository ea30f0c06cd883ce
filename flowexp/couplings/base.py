"""What a coupling answers: which source draw goes with which data point."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Coupling", "Pairs"]


@dataclass(frozen=True)
class Pairs:
    """A batch of coupled pairs.

    Attributes:
        x: Data, (B, ...).
        e: Source, (B, ...).
        conditions: What belongs to x and moved with it: ``labels`` (B,) and the like.
        weight: Loss weight of each pair, (B,), or None for 1.
    """

    x: Tensor
    e: Tensor
    conditions: dict[str, Tensor | None]
    weight: Tensor | None = None


class Coupling(ABC):
    """The joint law of (x, e) within a batch."""

    @abstractmethod
    def pair(
        self, x: Tensor, e: Tensor, conditions: dict[str, Tensor | None], *, rng: torch.Generator
    ) -> Pairs:
        """Couple data x (B, ...) and independent source draws e (B, ...).

        Args:
            x: Data, (B, ...).
            e: Independent source draws, (B, ...).
            conditions: Tensors that belong to the rows of x (labels ...), carried along.
            rng: Generator for couplings that draw.
        """
