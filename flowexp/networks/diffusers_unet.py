"""The U-Net of the diffusers library."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.networks.base import ImageArguments, ImageNetwork

__all__ = ["DiffusersUNet"]

# UNet2DModel's time embedding is this many times as wide as its first level.
_EMBEDDING = 4


class DiffusersUNet(ImageNetwork):
    """``diffusers.UNet2DModel`` as F(x, c_noise, labels, augment_labels).

    c_noise takes the place of the timestep. Label and augmentation vectors are added to its
    embedding by a linear layer without bias, so zeros mean "none" as in every network here.

    Arguments not listed here are those of :class:`ImageNetwork`.

    Args:
        block_out_channels: Channels of each level, highest resolution first; multiples of
            ``norm_num_groups``.
        layers_per_block: Residual blocks of a level.
        down_block_types: diffusers' name of each level's encoder block.
        up_block_types: diffusers' name of each level's decoder block, lowest resolution first.
        attention_head_dim: Channels of an attention head.
        norm_num_groups: Groups of the group normalisations.

    Raises:
        UsageError: diffusers is not installed.
        ValueError: An argument is out of range.
    """

    takes_scalars = False

    def __init__(
        self,
        *,
        block_out_channels: Sequence[int] = (64, 128, 128),
        layers_per_block: int = 2,
        down_block_types: Sequence[str] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types: Sequence[str] = ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim: int = 8,
        norm_num_groups: int = 32,
        dropout: float = 0.0,
        **image: Unpack[ImageArguments],
    ) -> None:
        try:
            from diffusers import UNet2DModel
        except ModuleNotFoundError as error:
            raise UsageError(
                "network=diffusers_unet needs the package diffusers: "
                "pip install 'flowexp[diffusers]'"
            ) from error
        super().__init__(min_multiple=2 ** (len(block_out_channels) - 1), **image)
        known = self.label_dim + self.augment_dim
        width = _EMBEDDING * block_out_channels[0]
        self.condition = nn.Linear(known, width, bias=False) if known else None
        self.unet = UNet2DModel(
            sample_size=self.padded_resolution,
            in_channels=self.input_channels,
            out_channels=self.out_channels,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            down_block_types=tuple(down_block_types),
            up_block_types=tuple(up_block_types),
            attention_head_dim=attention_head_dim,
            norm_num_groups=norm_num_groups,
            dropout=dropout,
            class_embed_type="identity" if known else None,
        )

    def evaluate(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None,
        augment: Tensor | None,
        scalars: Tensor | None = None,
    ) -> Tensor:
        if self.augment_dim and augment is None:
            augment = x.new_zeros(len(x), self.augment_dim)
        vectors = [v for v in (label, augment) if v is not None]
        embedded = self.condition(torch.cat(vectors, dim=1)) if self.condition else None
        output: Tensor = self.unet(x, c_noise, class_labels=embedded, return_dict=False)[0]
        return output
