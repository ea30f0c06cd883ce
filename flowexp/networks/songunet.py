"""SongUNet: the U-Net of DDPM++ and NCSN++ as retrained by EDM.

Source: Song et al. 2021, arXiv 2011.13456 (architectures); Karras et al. 2022, arXiv 2206.00364,
appendix F (this form; names, shapes and order of the state dict are those of its checkpoints).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.networks.embedding import FourierEmbedding, PositionalEmbedding
from flowexp.networks.songunet_block import UNetBlockStyle
from flowexp.networks.songunet_branches import ENCODER_BRANCHES, OutputBranch
from flowexp.networks.songunet_layers import Init, Linear
from flowexp.networks.songunet_levels import LeveledUNet

__all__ = ["SongUNet"]

Choice = TypeVar("Choice")


def _positional(channels: int) -> nn.Module:
    return PositionalEmbedding(channels, endpoint=True)


def _one_head(channels: int) -> int:
    return 1


def _pick(argument: str, name: str, options: Mapping[str, Choice]) -> Choice:
    """The option of that name, or a ValueError that lists them."""
    if name not in options:
        raise ValueError(f"{argument}={name!r}; allowed: {', '.join(options)}")
    return options[name]


NOISE_EMBEDDINGS: Mapping[str, Callable[[int], nn.Module]] = {
    "positional": _positional,
    "fourier": FourierEmbedding,
}


def _style(emb_channels: int, dropout: float, resample_filter: Sequence[float]) -> UNetBlockStyle:
    init = Init()
    return UNetBlockStyle(
        emb_channels=emb_channels,
        heads=_one_head,
        dropout=dropout,
        skip_scale=math.sqrt(0.5),
        eps=1e-6,
        resample_filter=tuple(resample_filter),
        resample_proj=True,
        adaptive_scale=False,
        init=init,
        init_zero=init.scaled(1e-5),
        init_attn=init.scaled(math.sqrt(0.2)),
    )


class SongUNet(LeveledUNet):
    """U-Net of DDPM++ (positional, standard, [1, 1]) and NCSN++ (fourier, residual, [1, 3, 3, 1]).

    Level l works at resolution R / 2^l with model_channels * channel_mult[l] channels, where R is
    ``img_resolution`` rounded up to a multiple of 2^(levels - 1).

    Args:
        img_resolution: Height and width of the images in pixels.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        label_dim: Number of classes or length of the label vectors; 0 = unconditional.
        augment_dim: Length of the augmentation vectors; 0 = none.
        model_channels: Base number of channels.
        channel_mult: Channel multiplier of each level, finest first.
        channel_mult_emb: Length of the conditioning vector over model_channels.
        num_blocks: Residual blocks per level.
        attn_resolutions: Resolutions (after padding) with self-attention.
        dropout: Dropout probability in the blocks.
        label_dropout: Probability of dropping a label in training.
        embedding_type: ``positional`` (DDPM++) or ``fourier`` (NCSN++).
        channel_mult_noise: Length of the embedding of c_noise over model_channels.
        encoder_type: ``standard`` (DDPM++), ``residual`` (NCSN++) or ``skip``.
        decoder_type: ``standard`` or ``skip``.
        resample_filter: Taps of the resampling filter: [1, 1] (DDPM++) or [1, 3, 3, 1] (NCSN++).

    Raises:
        ValueError: If an argument is out of range or not one of the names above.
    """

    def __init__(
        self,
        *,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[float] = (1, 1),
    ) -> None:
        embedding = _pick("embedding_type", embedding_type, NOISE_EMBEDDINGS)
        encoder_branch = _pick("encoder_type", encoder_type, ENCODER_BRANCHES)
        every_level = _pick("decoder_type", decoder_type, OutputBranch.TYPES)
        super().__init__(
            img_resolution=img_resolution,
            in_channels=in_channels,
            out_channels=out_channels,
            label_dim=label_dim,
            label_dropout=label_dropout,
            augment_dim=augment_dim,
            model_channels=model_channels,
            channel_mult=channel_mult,
            num_blocks=num_blocks,
            attn_resolutions=attn_resolutions,
            style=_style(model_channels * channel_mult_emb, dropout, resample_filter),
            encoder_branch=encoder_branch(),
            output_branch=OutputBranch(every_level=every_level),
            attend_last_only=True,
        )
        noise, emb = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        self.map_noise = embedding(noise)
        self.map_label = Linear(label_dim, noise) if label_dim else None
        self.map_augment = Linear(augment_dim, noise, bias=False) if augment_dim else None
        self.map_layer0 = Linear(noise, emb)
        self.map_layer1 = Linear(emb, emb)
        self.build_decoder(self.build_encoder(model_channels))

    def evaluate(
        self, x: Tensor, c_noise: Tensor, label: Tensor | None, augment: Tensor | None
    ) -> Tensor:
        """The network on padded images; see :meth:`Network.evaluate`."""
        # Published weights were trained with the halves in the order sine, cosine.
        cosine, sine = self.map_noise(c_noise).chunk(2, dim=1)
        emb = torch.cat([sine, cosine], dim=1)
        if self.map_label is not None and label is not None:
            emb = emb + self.map_label(label * math.sqrt(self.label_dim))
        if self.map_augment is not None and augment is not None:
            emb = emb + self.map_augment(augment)
        emb = F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))
        return self.decode(self.encode(x, emb), emb)
