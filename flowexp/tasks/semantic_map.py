"""Images from maps that tell the class of every pixel."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from flowexp.data import DataBatch, Dataset, quantize
from flowexp.networks.conditions import Condition
from flowexp.requirements import Part
from flowexp.tasks.held_out import TowardsImages

__all__ = ["FromLevels", "FromPartner", "Maps", "SemanticImages"]

_NONE, _LAST_LEVEL = -1, 255


class Maps(Part, ABC):
    """Where the maps of images come from.

    Attributes:
        classes: Number of classes, >= 1.
        of_partners: Whether they are stored with the images.
    """

    of_partners: bool = False

    def __init__(self, *, classes: int) -> None:
        if not 1 <= classes <= _LAST_LEVEL:
            raise ValueError(f"classes is {classes}; allowed: integers from 1 to {_LAST_LEVEL}")
        self.classes = classes

    @abstractmethod
    def __call__(self, x: Tensor, partner: Tensor | None) -> Tensor:
        """Maps (B, H, W), int64, 0 .. classes - 1 or -1 for no class.

        They are of images x, (B, C, H, W) in [-1, 1]; ``partner`` is what is stored with them.
        """


class FromPartner(Maps):
    """The levels of the first channel of the image stored with each image; 255 is no class."""

    of_partners = True

    def __call__(self, x: Tensor, partner: Tensor | None) -> Tensor:
        if partner is None:
            raise ValueError("maps: the data store no map with each image")
        levels = quantize(partner[:, 0]).to(torch.int64)
        return levels.masked_fill(levels == _LAST_LEVEL, _NONE)


class FromLevels(Maps):
    """The image itself in ``classes`` levels of equal width, of the mean of its channels.

    It makes maps of data that have none.
    """

    def __call__(self, x: Tensor, partner: Tensor | None) -> Tensor:
        levels = ((x.mean(dim=1) + 1.0) / 2.0 * self.classes).floor().to(torch.int64)
        return levels.clamp(0, self.classes - 1)


class SemanticImages(TowardsImages):
    """A map of classes for each image, the condition ``map``, (B, H, W), int64, -1 = no class.

    Args:
        maps: Where it comes from.

    Source: Dao et al., Flow Matching in Latent Space, 2023, arXiv 2307.08698, section 5.3
    (semantic-to-image).
    """

    given_names = ("map",)
    without_partners = "Use task/maps=levels, or data that store a map with each image."

    def __init__(
        self,
        *,
        dataset: Dataset,
        inputs: Mapping[str, Condition],
        maps: Maps,
        num_classes: int = 0,
        split: Literal["heldout", "train"] = "heldout",
    ) -> None:
        super().__init__(dataset=dataset, inputs=inputs, num_classes=num_classes, split=split)
        self.maps = maps
        self.of_partners = maps.of_partners

    def made_of(
        self, batch: DataBatch, x: Tensor, uniforms: Tensor, *, split: str
    ) -> dict[str, Tensor | None]:
        return {"map": self.maps(x, batch.partner)}

    def beside(self, conditions: Mapping[str, Tensor | None]) -> list[Tensor]:
        """The map in shades of grey, from class 0 in black to the last in white."""
        classes = conditions["map"]
        if classes is None:
            return []
        shades = classes.clamp(min=0) / max(1, self.maps.classes - 1)
        return [2.0 * shades[:, None].to(torch.float32) - 1.0]
