"""No augmentation."""

import torch
from torch import Tensor

from flowexp.augmentations.base import Augmentation

__all__ = ["NoAugmentation"]


class NoAugmentation(Augmentation):
    """The pictures as they are, and labels without columns."""

    augment_dim = 0

    def __call__(
        self, images: Tensor, *, rng: torch.Generator, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """The pictures themselves and an empty (B, 0); draws nothing."""
        return images, images.new_zeros(len(images), 0)
