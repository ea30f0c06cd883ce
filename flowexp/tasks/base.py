"""What a task answers: what is asked of the model for each sample."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Task"]


class Task(ABC):
    """A question put to a model.

    Attributes:
        num_classes: Number of classes that labels are drawn from; 0 = none are.
    """

    num_classes: int = 0

    @abstractmethod
    def conditions(
        self,
        seeds: Sequence[int],
        *,
        labels: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor | None]:
        """The conditions of the samples with these seeds, one row each.

        Row ``j`` depends on ``seeds[j]`` only, so that a sample is the same in every batch.

        Args:
            seeds: One seed per sample.
            labels: Classes that were drawn together with the latents, (B,) int64; None = the task
                draws its own where it wants random ones.
            device: Where the tensors are needed.
        """
