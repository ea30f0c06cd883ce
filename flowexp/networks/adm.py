"""DhariwalUNet: the ADM U-Net as retrained by EDM for ImageNet-64, and the U-Nets of its family.

Source: Dhariwal and Nichol 2021, arXiv 2105.05233; Karras et al. 2022, arXiv 2206.00364, appendix F
(this form; names, shapes and order of the state dict are those of its checkpoints); Ho et al. 2020,
arXiv 2006.11239 (DDPM's U-Net, of which ADM's is a development).
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from flowexp.networks.base import require_at_least
from flowexp.networks.conditions import Condition
from flowexp.networks.embedding import PositionalEmbedding
from flowexp.networks.songunet import LeveledUNet
from flowexp.networks.songunet_layers import (
    Conv2d,
    GroupNorm,
    Init,
    Linear,
    UNetBlockStyle,
    kaiming_normal,
    kaiming_uniform,
)

__all__ = ["DhariwalUNet"]


class DhariwalUNet(LeveledUNet):
    """ADM U-Net: adaptive group norm, attention with 64 channels per head.

    Blocks with fewer channels than a head have no attention, whatever ``attn_resolutions`` says (as
    in the authors' code). With the last four arguments it is any unconditional U-Net of
    guided-diffusion's ``unet.py``, in which they are ``use_scale_shift_norm``,
    ``num_head_channels``, and ``resblock_updown`` with ``conv_resample``. Arguments not listed here
    are those of :class:`SongUNet`.

    Args:
        adaptive_scale: Whether the condition scales and shifts the features; else it is added.
        head_channels: Channels per attention head; None = one head.
        resample_kernel: Width of the convolution that resamples between two levels (3, as in DDPM
            and torchcfm); 0 = only the mean of 2 x 2 pixels and nearest neighbours; None = a
            residual block resamples.
        ddpm: Whether frequencies of the embedding, initial weights and the norms' eps are those of
            DDPM's code: the last frequency is 1/10000, Glorot-uniform weights, no bias, 1e-6.

    Raises:
        ValueError: If an argument is out of range.
    """

    later_options: ClassVar[Mapping[str, object]] = {
        **LeveledUNet.later_options,
        "adaptive_scale": True,
        "head_channels": 64,
        "resample_kernel": None,
        "ddpm": False,
    }

    def __init__(
        self,
        *,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        scalars: Sequence[str] = (),
        conditions: Mapping[str, Condition] | None = None,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        adaptive_scale: bool = True,
        head_channels: int | None = 64,
        resample_kernel: int | None = None,
        ddpm: bool = False,
    ) -> None:
        if head_channels is not None:
            require_at_least(1, head_channels=head_channels)
        if resample_kernel not in (None, 0, 1, 3):
            raise ValueError(f"resample_kernel={resample_kernel}; allowed: null, 0, 1, 3")
        require_at_least(1, channel_mult_emb=channel_mult_emb)
        emb = model_channels * channel_mult_emb
        init = Init() if ddpm else Init(kaiming_uniform, math.sqrt(1 / 3), math.sqrt(1 / 3))
        style = UNetBlockStyle(
            emb_channels=emb,
            head_channels=head_channels,
            dropout=dropout,
            skip_scale=1.0,
            eps=1e-6 if ddpm else 1e-5,
            resample_filter=(1, 1),
            resample_proj=False,
            adaptive_scale=adaptive_scale,
            init=init,
            init_zero=init.scaled(1e-5 if ddpm else 0.0),
            init_attn=init,
            resample_kernel=resample_kernel,
        )
        super().__init__(
            img_resolution=img_resolution,
            in_channels=in_channels,
            out_channels=out_channels,
            label_dim=label_dim,
            label_dropout=label_dropout,
            augment_dim=augment_dim,
            scalars=scalars,
            conditions=conditions,
            model_channels=model_channels,
            channel_mult=channel_mult,
            num_blocks=num_blocks,
            attn_resolutions=attn_resolutions,
            style=style,
        )
        self.map_noise = PositionalEmbedding(model_channels, endpoint=ddpm)
        self.map_augment: Linear | None = None
        if augment_dim:
            self.map_augment = Linear(augment_dim, model_channels, bias=False, init=style.init_zero)
        self.map_layer0 = Linear(model_channels, emb, init=style.init)
        self.map_layer1 = Linear(emb, emb, init=style.init)
        label_init = Init(kaiming_normal, math.sqrt(label_dim))
        self.map_label = Linear(label_dim, emb, bias=False, init=label_init) if label_dim else None
        channels = self.build_decoder(self.build_encoder(self.widths[0]))
        self.out_norm = GroupNorm(channels, eps=style.eps)
        self.out_conv = Conv2d(channels, out_channels, kernel=3, init=style.init_zero)
        self.embed_scalars(emb)

    def evaluate(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None,
        augment: Tensor | None,
        scalars: Tensor | None = None,
    ) -> Tensor:
        emb = self.map_noise(c_noise)
        if self.map_augment is not None and augment is not None:
            emb = emb + self.map_augment(augment)
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None and label is not None:
            emb = emb + self.map_label(label)
        vector = self.scalar_vector(scalars)
        if vector is not None:
            emb = emb + vector
        emb = F.silu(emb)
        out: Tensor = self.out_conv(F.silu(self.out_norm(self.decode(self.encode(x, emb), emb))))
        return out
