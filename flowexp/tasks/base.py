"""What a task answers: what is asked of the model for each sample."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from flowexp.requirements import Part, Parts, Unmet

__all__ = ["Task"]


class Task(Part, ABC):
    """A question put to a model.

    Attributes:
        num_classes: Number of classes that labels are drawn from; 0 = none are.
        gives_tokens: Whether the conditions are captions, under ``tokens``.
    """

    num_classes: int = 0
    gives_tokens: bool = False

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network that takes the captions it gives, and gives those that a network takes."""
        name = type(self).__name__
        if parts.network.takes_tokens and not self.gives_tokens:
            problem = f"the network is conditioned on captions, which {name} does not give."
            yield Unmet(".", problem, "Use task=captions.")
        elif self.gives_tokens and not parts.network.takes_tokens:
            problem = f"{name} makes captions, which the network does not take."
            yield Unmet("network", problem, "Use network=captioned, or task=generation.")

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
