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
        gives_tokens: Whether the conditions are captions, under ``tokens``.
    """

    num_classes: int = 0
    gives_tokens: bool = False

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

    def conditions_of(self, labels: Tensor | None) -> dict[str, Tensor | None]:
        """What a conditional network is told, in training, of data with these labels.

        Args:
            labels: Classes (B,), int64; or label vectors (B, num_classes); or None.
        """
        return {"labels": labels}

    def targets(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> Tensor | None:
        """What the samples with these seeds should be, for metrics that compare one by one.

        Args:
            seeds: One seed per sample.
            device: Where the tensor is needed.

        Returns:
            One picture per seed, (B, C, H, W), uint8 levels or floating data in [-1, 1]; None where
            there is no right answer, as in generation.
        """
        return None
