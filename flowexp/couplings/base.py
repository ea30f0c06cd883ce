"""The protocol of couplings: which source draw goes with which data point."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.augmentations import Augmentation
from flowexp.paths import Path

__all__ = ["Conditions", "Coupling", "Pairs"]

Conditions = dict[str, Tensor | None]
"""Tensors that belong to the rows of a batch, by name: ``labels``, ``tokens`` ..."""


@dataclass(frozen=True)
class Pairs:
    """A batch of coupled pairs.

    Attributes:
        x: Data, (B, ...).
        e: Source, (B, ...).
        conditions: Tensors that belong to the rows of x: ``labels`` (B,) and the like.
        weight: Loss weight of each pair, (B,), or None for 1.
        t: Times of the pairs, (B,), float64, where the coupling sets them; None = the timestep
            distribution draws them.
    """

    x: Tensor
    e: Tensor
    conditions: Conditions
    weight: Tensor | None = None
    t: Tensor | None = None


class Coupling(ABC):
    """The joint distribution of (x, e) within a batch.

    Attributes:
        needs_partner: Whether it couples x to the source draw stored with it, so that the data must
            be pairs.
        needs_gaussian: Whether it adds draws of e, which is right for a Gaussian source only;
            :meth:`check_path` refuses other sources then.
        gives_times: Whether it has pictures and times of its own, so that it uses neither those of
            the data nor the timestep distribution's.
    """

    needs_partner: bool = False
    needs_gaussian: bool = False
    gives_times: bool = False

    def check_path(self, path: Path) -> None:
        """Refuse a path on which its pairs mean something else; called once, before training.

        Args:
            path: The path of training.

        Raises:
            ValueError: The pairs belong to another path, or its source is not Gaussian.
        """
        if self.needs_gaussian and not path.source.is_gaussian:
            raise ValueError(
                f"{type(self).__name__} adds Gaussian draws, but the source is {path.source!r}"
            )

    def check_augmentation(self, augmentation: Augmentation | None) -> None:
        """Refuse an augmentation that changes pictures that belong to stored pairs.

        Raises:
            ValueError: The changed pictures would not be those of the pairs.
        """
        if augmentation is None or not augmentation.changes_pictures:
            return
        changing, own = type(augmentation).__name__, type(self).__name__
        if self.needs_partner:
            raise ValueError(
                f"{changing} changes pictures, but not the noise that {own} couples them to; "
                f"use augmentation=none"
            )
        if self.gives_times:
            raise ValueError(
                f"{changing} changes pictures that {own} does not use; use augmentation=none"
            )

    @abstractmethod
    def pair(
        self,
        x: Tensor,
        e: Tensor,
        conditions: Conditions,
        *,
        rng: torch.Generator,
        partner: Tensor | None = None,
        images_seen: int = 0,
    ) -> Pairs:
        """Couple data x (B, ...) and independent source draws e (B, ...).

        Args:
            x: Data, (B, ...).
            e: Independent source draws, (B, ...).
            conditions: Tensors that belong to the rows of x (labels ...); reordered with x.
            rng: Generator for couplings that draw.
            partner: The source draw stored with each row of x, (B, ...), or None.
            images_seen: Images that training has seen before this batch, over all devices.

        Raises:
            ValueError: Partners or labels are needed but missing, or the shapes differ.
        """
