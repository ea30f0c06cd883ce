"""No augmentation."""

import torch
from torch import Tensor

from flowexp.augmentations.base import Augmentation

__all__ = ["NoAugmentation"]


class NoAugmentation(Augmentation):
    """Unchanged images, and labels of zeros; draws nothing.

    Args:
        augment_dim: Number of label columns: that of a network which was trained with an
            augmentation and continues without one; else 0.

    Raises:
        ValueError: augment_dim is negative.
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
