"""Generation of samples: unconditional, of random classes, or of one class."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flowexp.seeding import generator
from flowexp.tasks.base import Task

__all__ = ["Generation"]


class Generation(Task):
    """Samples of the data distribution; with classes, of classes drawn uniformly.

    Args:
        num_classes: Number of classes of the network, >= 0; 0 = unconditional.
        label: The class of every sample, -1 for "no class", or None to draw one per sample.
    """

    def __init__(self, *, num_classes: int = 0, label: int | None = None) -> None:
        if num_classes < 0:
            raise ValueError(f"num_classes is {num_classes}; allowed: integers >= 0")
        if label is not None and not -1 <= label < num_classes:
            allowed = f"-1 to {num_classes - 1}" if num_classes else "null, there are no classes"
            raise ValueError(f"task.label is {label}; allowed: {allowed}")
        self.num_classes = num_classes
        self.label = label

    def conditions(
        self,
        seeds: Sequence[int],
        *,
        labels: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor | None]:
        """``labels``, (B,) int64: the fixed class, those given, or drawn from (seed, "labels")."""
        if self.num_classes == 0:
            return {}
        if self.label is not None:
            return {"labels": torch.full((len(seeds),), self.label, device=device)}
        if labels is not None:
            return {"labels": labels.to(device)}
        streams = [generator(seed, "labels") for seed in seeds]
        drawn = [torch.randint(self.num_classes, (), generator=stream) for stream in streams]
        return {"labels": torch.stack(drawn).to(device)}
