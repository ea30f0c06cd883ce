"""Reconstruction: the sample of a seed is a real image, as an autoencoder gives it back."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from flowexp.data import as_data
from flowexp.requirements import Parts, Unmet
from flowexp.tasks.held_out import HeldOut

__all__ = ["Reconstruction"]


class Reconstruction(HeldOut):
    """Condition and target of a sample are the same image. Labels are not used.

    The condition ``image`` is float32 in [-1, 1]; it is the sampler's, not the network's.
    """

    gives_image = True

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A sampler that gives images back."""
        if not parts.sampler.reconstructs:
            problem = f"{type(parts.sampler).__name__} does not take an image to give back."
            yield Unmet(".", problem, "Use sampler=reconstruction, or task=generation.")

    def conditions(
        self,
        seeds: Sequence[int],
        *,
        labels: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor | None]:
        return {"image": as_data(self.targets(seeds, device=device))}

    def targets(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> Tensor:
        """The images of these seeds, (B, C, H, W), as they are stored."""
        return self._items(seeds).images.to(device)
