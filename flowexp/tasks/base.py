"""The protocol of tasks: conditions, and perhaps a target, of each sample."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from flowexp.requirements import Part, Parts, Unmet

__all__ = ["Task"]


class Task(Part, ABC):
    """The conditions, and perhaps the targets, of samples.

    Constructors raise ``ValueError`` for an argument outside the range that their docstring states.

    Attributes:
        num_classes: Number of classes that labels are drawn from; 0 = no labels.
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
        ``labels``, (B,) int64, were drawn together with the latents; None = the task draws its own.
        """

    def conditions_of(self, labels: Tensor | None) -> dict[str, Tensor | None]:
        """The conditions in training: ``labels`` are (B,), int64, or vectors (B, num_classes)."""
        return {"labels": labels}

    def targets(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> Tensor | None:
        """The ground truth of the samples with these seeds, for metrics that compare one by one.

        One image per seed, (B, C, H, W), uint8 levels or floating data in [-1, 1]; None where
        there is none, as in generation.
        """
        return None
