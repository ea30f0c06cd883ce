"""What a task answers: what is asked of the model for each sample."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Task"]


class Task(ABC):
    """A question put to a model."""

    @abstractmethod
    def conditions(
        self, seeds: Sequence[int], *, device: torch.device | str = "cpu"
    ) -> dict[str, Tensor | None]:
        """The conditions of the samples with these seeds, one row each.

        Row ``j`` depends on ``seeds[j]`` only, so that a sample is the same in every batch.

        Args:
            seeds: One seed per sample.
            device: Where the tensors are needed.
        """
