"""Completing images with a hole."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from flowexp.data import DataBatch, Dataset
from flowexp.networks.conditions import Condition
from flowexp.tasks.held_out import TowardsImages
from flowexp.tasks.masks import MaskLaw

__all__ = ["Inpainting"]


class Inpainting(TowardsImages):
    """The image with a hole, ``(1 - m) x - m``, and the mask ``2 m - 1``, m = 1 in the hole.

    The conditions are ``image``, (B, C, H, W) in [-1, 1], black in the hole, and ``mask``,
    (B, 1, H, W), +1 in the hole and -1 outside.

    Args:
        mask: The law of the hole.
        paste: Whether the known pixels of a sample are replaced by those of the image, which the
            network only approximates.

    Source: Dao et al., Flow Matching in Latent Space, 2023, arXiv 2307.08698, and their code, which
    pastes nothing.
    """

    given_names = ("image", "mask")

    def __init__(
        self,
        *,
        dataset: Dataset,
        inputs: Mapping[str, Condition],
        mask: MaskLaw,
        paste: bool = False,
        num_classes: int = 0,
        split: Literal["heldout", "train"] = "heldout",
    ) -> None:
        super().__init__(dataset=dataset, inputs=inputs, num_classes=num_classes, split=split)
        self.mask = mask
        self.paste = paste

    def uniforms(self, height: int, width: int) -> int:
        return self.mask.uniforms(height, width)

    def made_of(
        self, batch: DataBatch, x: Tensor, uniforms: Tensor, *, split: str
    ) -> dict[str, Tensor | None]:
        hole = self.mask.holes(uniforms.to(x.device), *x.shape[-2:])[:, None]
        return {"image": x.masked_fill(hole, -1.0), "mask": 2.0 * hole.to(x.dtype) - 1.0}

    def beside(self, conditions: Mapping[str, Tensor | None]) -> list[Tensor]:
        """The image, with a grey hole."""
        image, mask = conditions["image"], conditions["mask"]
        return [] if image is None or mask is None else [image.masked_fill(mask > 0.0, 0.0)]

    def finished(self, x: Tensor, conditions: Mapping[str, Tensor | None]) -> Tensor:
        image, mask = conditions["image"], conditions["mask"]
        if not self.paste or image is None or mask is None:
            return x
        return x.where(mask > 0.0, image.to(x.dtype))
