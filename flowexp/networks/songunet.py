"""SongUNet: the U-Net of DDPM++ and NCSN++ as retrained by EDM, and the levels it shares with ADM.

Source: Song et al. 2021, arXiv 2011.13456 (architectures); Karras et al. 2022, arXiv 2206.00364,
appendix F (this form; names, shapes and order of the state dict are those of its checkpoints).
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.networks.base import ImageArguments, ImageNetwork, require_at_least
from flowexp.networks.conditions import Condition
from flowexp.networks.embedding import FourierEmbedding, PositionalEmbedding
from flowexp.networks.songunet_layers import (
    Conv2d,
    GroupNorm,
    Init,
    Linear,
    Resample,
    UNetBlock,
    UNetBlockStyle,
)

__all__ = ["LeveledUNet", "SongUNet"]


class LeveledUNet(ImageNetwork):
    """U-Net with level l at resolution R / 2^l and model_channels * channel_mult[l] channels.

    R is ``img_resolution`` rounded up to a multiple of 2^(levels - 1). The modules are named by the
    resolution of their level (``enc.32x32_block0``), as in EDM's checkpoints, and registered in the
    order in which a subclass calls ``build_encoder`` and ``build_decoder``. Arguments not listed
    here are those of :class:`SongUNet`.

    Args:
        style: What all blocks have in common.
        encoder_type: Second branch ``aux`` of the encoder, from the downsampled network input:
            ``standard`` has none; ``skip`` adds a 1x1 convolution of it to the features;
            ``residual`` is a pyramid, ``aux = x = (x + conv(aux)) / sqrt(2)``.
        decoder_type: Output heads, out = conv(silu(norm(x))): ``standard`` has one at the finest
            level, ``skip`` one at every level, added to the upsampled output of the level below;
            None = the decoder returns its features.
        attend_last_only: Whether only the last decoder block of a level has attention.
    """

    def __init__(
        self,
        *,
        model_channels: int,
        channel_mult: Sequence[int],
        num_blocks: int,
        attn_resolutions: Sequence[int],
        style: UNetBlockStyle,
        encoder_type: str = "standard",
        decoder_type: str | None = None,
        attend_last_only: bool = False,
        **image: Unpack[ImageArguments],
    ) -> None:
        if not channel_mult:
            raise ValueError("channel_mult=[]; allowed: at least one level")
        require_at_least(1, num_blocks=num_blocks)
        if not 0.0 <= style.dropout < 1.0:
            raise ValueError(f"dropout={style.dropout}; allowed: [0, 1)")
        super().__init__(min_multiple=2 ** (len(channel_mult) - 1), **image)
        self.num_blocks = num_blocks
        self.widths = tuple(model_channels * mult for mult in channel_mult)
        resolutions = [self.padded_resolution >> level for level in range(len(channel_mult))]
        self.levels = tuple(f"{resolution}x{resolution}" for resolution in resolutions)
        self.attention = tuple(resolution in attn_resolutions for resolution in resolutions)
        self.style = style
        self.encoder_type = encoder_type
        self.decoder_type = decoder_type
        self.attend_last_only = attend_last_only

    def _block(self, in_channels: int, out_channels: int, *, attention: bool = False) -> UNetBlock:
        return UNetBlock(in_channels, out_channels, style=self.style, attention=attention)

    def _between(self, channels: int, *, up: bool = False, down: bool = False) -> nn.Module:
        """What leads from one level to the next."""
        style, kernel = self.style, self.style.resample_kernel
        if kernel is None:
            return UNetBlock(channels, channels, style=style, up=up, down=down)
        return Resample(channels, channels, kernel=kernel, up=up, down=down, init=style.init)

    def build_encoder(self, channels: int) -> list[int]:
        """Fill ``enc``, starting with ``channels``; the channels of every skip connection."""
        self.enc = nn.ModuleDict()
        style, aux = self.style, self.input_channels
        halved = partial(Conv2d, down=True, resample_filter=style.resample_filter)
        skips = [channels]
        for index, (level, width) in enumerate(zip(self.levels, self.widths, strict=True)):
            if index == 0:
                self.enc[f"{level}_conv"] = Conv2d(
                    self.input_channels, channels, kernel=3, init=style.init
                )
            else:
                self.enc[f"{level}_down"] = self._between(channels, down=True)
                if self.encoder_type == "residual":
                    self.enc[f"{level}_aux_residual"] = halved(
                        aux, channels, kernel=3, filter_last=True, init=style.init
                    )
                    aux = channels
                elif self.encoder_type == "skip":
                    self.enc[f"{level}_aux_down"] = halved(aux, aux, kernel=0)
                    self.enc[f"{level}_aux_skip"] = Conv2d(aux, channels, kernel=1, init=style.init)
                skips.append(channels)
            for block in range(self.num_blocks):
                self.enc[f"{level}_block{block}"] = self._block(
                    channels, width, attention=self.attention[index]
                )
                channels = width
                skips.append(channels)
        return skips

    def build_decoder(self, skips: list[int]) -> int:
        """Fill ``dec``, coarsest level first; the channels of its last block."""
        self.dec = nn.ModuleDict()
        channels, coarsest = skips[-1], len(self.levels) - 1
        for index in reversed(range(len(self.levels))):
            level, width = self.levels[index], self.widths[index]
            if index == coarsest:
                self.dec[f"{level}_in0"] = self._block(channels, channels, attention=True)
                self.dec[f"{level}_in1"] = self._block(channels, channels)
            else:
                self.dec[f"{level}_up"] = self._between(channels, up=True)
            for block in range(self.num_blocks + 1):
                attends = block == self.num_blocks or not self.attend_last_only
                self.dec[f"{level}_block{block}"] = self._block(
                    channels + skips.pop(), width, attention=self.attention[index] and attends
                )
                channels = width
            if self.decoder_type == "skip" or (self.decoder_type == "standard" and index == 0):
                self._build_head(level, channels, lowest=index == coarsest)
        return channels

    def _build_head(self, level: str, channels: int, *, lowest: bool) -> None:
        style, out = self.style, self.out_channels
        if self.decoder_type == "skip" and not lowest:
            self.dec[f"{level}_aux_up"] = Conv2d(
                out, out, kernel=0, up=True, resample_filter=style.resample_filter
            )
        self.dec[f"{level}_aux_norm"] = GroupNorm(channels, eps=style.eps)
        self.dec[f"{level}_aux_conv"] = Conv2d(channels, out, kernel=3, init=style.init_zero)

    def encode(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """Features of every skip connection, in order."""
        aux = x
        skips: list[Tensor] = []
        for index, level in enumerate(self.levels):
            if index == 0:
                x = self.enc[f"{level}_conv"](x)
            else:
                x = self.enc[f"{level}_down"](x, emb)
                if self.encoder_type == "residual":
                    x = aux = (x + self.enc[f"{level}_aux_residual"](aux)) / math.sqrt(2)
                elif self.encoder_type == "skip":
                    aux = self.enc[f"{level}_aux_down"](aux)
                    x = x + self.enc[f"{level}_aux_skip"](aux)
            skips.append(x)
            for block in range(self.num_blocks):
                x = self.enc[f"{level}_block{block}"](x, emb)
                skips.append(x)
        return skips

    def decode(self, skips: list[Tensor], emb: Tensor) -> Tensor:
        """What the output heads give, or the last features where there are none."""
        x = skips[-1]
        out: Tensor | None = None
        for index, level in reversed(list(enumerate(self.levels))):
            if index == len(self.levels) - 1:
                x = self.dec[f"{level}_in1"](self.dec[f"{level}_in0"](x, emb), emb)
            else:
                x = self.dec[f"{level}_up"](x, emb)
            for block in range(self.num_blocks + 1):
                x = self.dec[f"{level}_block{block}"](torch.cat([x, skips.pop()], dim=1), emb)
            if f"{level}_aux_conv" in self.dec:
                head = self.dec[f"{level}_aux_conv"](F.silu(self.dec[f"{level}_aux_norm"](x)))
                out = head if out is None else head + self.dec[f"{level}_aux_up"](out)
        return x if out is None else out


def _require_choice(argument: str, value: str, *options: str) -> None:
    if value not in options:
        raise ValueError(f"{argument}={value!r}; allowed: {', '.join(options)}")


class SongUNet(LeveledUNet):
    """U-Net of DDPM++ (positional, standard, [1, 1]) and NCSN++ (fourier, residual, [1, 3, 3, 1]).

    Levels are those of :class:`LeveledUNet`. Arguments not listed here are those of
    :class:`ImageNetwork`.

    Args:
        model_channels: Base number of channels.
        channel_mult: Channel multiplier of each level, finest first.
        channel_mult_emb: Length of the conditioning vector over model_channels.
        num_blocks: Residual blocks per level.
        attn_resolutions: Resolutions (after padding) with self-attention.
        dropout: Dropout probability in the blocks.
        embedding_type: ``positional`` (DDPM++) or ``fourier`` (NCSN++).
        channel_mult_noise: Length of the embedding of c_noise over model_channels.
        encoder_type: ``standard`` (DDPM++), ``residual`` (NCSN++) or ``skip``; see
            :class:`LeveledUNet`.
        decoder_type: ``standard`` or ``skip``.
        resample_filter: Taps of the resampling filter: [1, 1] (DDPM++) or [1, 3, 3, 1] (NCSN++).
        fourier_scale: Standard deviation of the frequencies of ``fourier``, > 0; 16 in NCSN++ and
            EDM, 0.02 in iCT.

    Raises:
        ValueError: If an argument is out of range or not one of the names above.
    """

    later_options: ClassVar[Mapping[str, object]] = {
        **LeveledUNet.later_options,
        "fourier_scale": 16.0,
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
        fourier_scale: float = 16.0,
    ) -> None:
        if not fourier_scale > 0.0:
            raise ValueError(f"fourier_scale={fourier_scale}; allowed: positive numbers")
        _require_choice("embedding_type", embedding_type, "positional", "fourier")
        _require_choice("encoder_type", encoder_type, "standard", "skip", "residual")
        _require_choice("decoder_type", decoder_type, "standard", "skip")
        require_at_least(1, channel_mult_emb=channel_mult_emb)
        require_at_least(1, channel_mult_noise=channel_mult_noise)
        noise, emb = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        init = Init()
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
            style=UNetBlockStyle(
                emb_channels=emb,
                head_channels=None,
                dropout=dropout,
                skip_scale=math.sqrt(0.5),
                eps=1e-6,
                resample_filter=tuple(resample_filter),
                resample_proj=True,
                adaptive_scale=False,
                init=init,
                init_zero=init.scaled(1e-5),
                init_attn=init.scaled(math.sqrt(0.2)),
            ),
            encoder_type=encoder_type,
            decoder_type=decoder_type,
            attend_last_only=True,
        )
        fourier = embedding_type == "fourier"
        self.map_noise = (
            FourierEmbedding(noise, scale=fourier_scale)
            if fourier
            else PositionalEmbedding(noise, endpoint=True)
        )
        self.map_label = Linear(label_dim, noise) if label_dim else None
        self.map_augment = Linear(augment_dim, noise, bias=False) if augment_dim else None
        self.map_layer0 = Linear(noise, emb)
        self.map_layer1 = Linear(emb, emb)
        self.build_decoder(self.build_encoder(model_channels))
        self.embed_scalars(noise)

    def evaluate(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None,
        augment: Tensor | None,
        scalars: Tensor | None = None,
    ) -> Tensor:
        # Published weights were trained with the halves in the order sine, cosine.
        cosine, sine = self.map_noise(c_noise).chunk(2, dim=1)
        emb = torch.cat([sine, cosine], dim=1)
        if self.map_label is not None and label is not None:
            emb = emb + self.map_label(label * math.sqrt(self.label_dim))
        if self.map_augment is not None and augment is not None:
            emb = emb + self.map_augment(augment)
        vector = self.scalar_vector(scalars)
        if vector is not None:
            emb = emb + vector
        emb = F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))
        return self.decode(self.encode(x, emb), emb)
