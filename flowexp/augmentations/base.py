"""The protocol of augmentations: changed images, and labels that describe the change."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.requirements import Part, Parts, Unmet

__all__ = ["Augmentation", "NoAugmentation"]


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
