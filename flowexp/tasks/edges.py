"""Images from maps of their edges."""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.data import DataBatch, Dataset
from flowexp.networks.conditions import Condition
from flowexp.tasks.held_out import TowardsImages

__all__ = ["Edges", "edge_map"]


class Edges(TowardsImages):
    """Images from maps of their edges, under ``image``; see :func:`edge_map`.

    Args:
        threshold: Gradient from which on a pixel is an edge, > 0; None = the map of gradients.

    Raises:
        ValueError: threshold is out of range.
    """

    given_names = ("image",)

    def __init__(
        self,
        *,
        dataset: Dataset,
        inputs: Mapping[str, Condition],
        threshold: float | None = 0.2,
        num_classes: int = 0,
        split: Literal["heldout", "train"] = "heldout",
    ) -> None:
        super().__init__(dataset=dataset, inputs=inputs, num_classes=num_classes, split=split)
        if threshold is not None and not threshold > 0.0:
            raise ValueError(f"threshold is {threshold}; allowed: numbers > 0, or null")
        self.threshold = threshold

    def made_of(
        self, batch: DataBatch, x: Tensor, uniforms: Tensor, *, split: str
    ) -> dict[str, Tensor | None]:
        return {"image": edge_map(x, threshold=self.threshold)}


def edge_map(x: Tensor, *, threshold: float | None) -> Tensor:
    """The edges of images x, (B, C, H, W), in [-1, 1]: the same map in every channel.

    ``g = |Sobel gradient|`` of the mean over channels, per pixel, with the border repeated; a full
    step from -1 to 1 has g = 1. The map is 1 where ``g >= threshold`` and -1 elsewhere, or without
    a threshold ``2 min(g, 1) - 1``.

    Source: the operator is in Duda and Hart, Pattern Classification and Scene Analysis, 1973.
    """
    grey = F.pad(x.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8.0
    kernels = torch.stack([across, across.T])[:, None].to(grey)
    g = F.conv2d(grey, kernels).square().sum(dim=1, keepdim=True).sqrt()
    soft = g.clamp(max=1.0) if threshold is None else (g >= threshold).to(g)
    return (2.0 * soft - 1.0).expand_as(x)
