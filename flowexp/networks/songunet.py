"""SongUNet: the U-Net of DDPM++ and NCSN++ as retrained by EDM, and the levels it shares with ADM.

Source: Song et al. 2021, arXiv 2011.13456 (architectures); Karras et al. 2022, arXiv 2206.00364,
appendix F (this form; names, shapes and order of the state dict are those of its checkpoints).
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.networks.base import ImageArguments, ImageNetwork, require_at_least
from flowexp.networks.embedding import FourierEmbedding, PositionalEmbedding
from flowexp.networks.songunet_layers import (
    Conv2d,
    GroupNorm,
    Init,
    Linear,
    UNetBlock,
    UNetBlockStyle,
)

__all__ = ["EncoderBranch", "LeveledUNet", "OutputBranch", "SongUNet"]

Choice = TypeVar("Choice")


class EncoderBranch:
    """Second branch of the encoder, from the downsampled network input.

    Its modules live in the network's ``enc`` under EDM's names, so that published weights load.

    Args:
        residual: Whether the branch is a residual pyramid, ``aux = x = (x + conv(aux)) / sqrt(2)``
            (NCSN++), or the input is downsampled by the filter alone, and a 1x1 convolution of it
            is added.
    """

    def __init__(self, *, residual: bool) -> None:
        self.residual = residual

    def modules(
        self, aux_channels: int, out_channels: int, style: UNetBlockStyle
    ) -> dict[str, nn.Module]:
        """Modules of one level by name suffix."""
        down = functools.partial(Conv2d, down=True, resample_filter=style.resample_filter)
        if self.residual:
            conv = down(aux_channels, out_channels, kernel=3, filter_last=True, init=style.init)
            return {"aux_residual": conv}
        skip = Conv2d(aux_channels, out_channels, kernel=1, init=style.init)
        return {"aux_down": down(aux_channels, aux_channels, kernel=0), "aux_skip": skip}

    def merge(
        self, x: Tensor, aux: Tensor, modules: nn.ModuleDict, level: str
    ) -> tuple[Tensor, Tensor]:
        """The main features and the branch after the level."""
        if self.residual:
            x = (x + modules[f"{level}_aux_residual"](aux)) / math.sqrt(2)
            return x, x
        aux = modules[f"{level}_aux_down"](aux)
        return x + modules[f"{level}_aux_skip"](aux), aux


class OutputBranch:
    """Output head: out = conv(silu(norm(x))), at the finest level or summed over all levels.

    Args:
        every_level: Whether each level adds to the upsampled output of the level below
            (decoder type ``skip``), or only the finest level has a head (``standard``).
    """

    def __init__(self, *, every_level: bool) -> None:
        self.every_level = every_level

    def modules(
        self, channels: int, out_channels: int, style: UNetBlockStyle, *, coarsest: bool
    ) -> dict[str, nn.Module]:
        """Modules of a level with a head, by name suffix."""
        made: dict[str, nn.Module] = {}
        if self.every_level and not coarsest:
            made["aux_up"] = Conv2d(
                out_channels, out_channels, kernel=0, up=True, resample_filter=style.resample_filter
            )
        made["aux_norm"] = GroupNorm(channels, eps=style.eps)
        made["aux_conv"] = Conv2d(channels, out_channels, kernel=3, init=style.init_zero)
        return made

    def gather(
        self, x: Tensor, aux: Tensor | None, modules: nn.ModuleDict, level: str
    ) -> Tensor | None:
        """The output so far, after the level."""
        if f"{level}_aux_conv" not in modules:
            return aux
        out: Tensor = modules[f"{level}_aux_conv"](F.silu(modules[f"{level}_aux_norm"](x)))
        return out if aux is None else out + modules[f"{level}_aux_up"](aux)


class LeveledUNet(ImageNetwork):
    """U-Net with level l at resolution R / 2^l and model_channels * channel_mult[l] channels.

    R is ``img_resolution`` rounded up to a multiple of 2^(levels - 1). The modules are named by the
    resolution of their level (``enc.32x32_block0``), as in EDM's checkpoints, and registered in the
    order in which a subclass calls ``build_encoder`` and ``build_decoder``. Arguments not listed
    here are those of :class:`SongUNet`.

    Args:
        style: What all blocks have in common.
        encoder_branch: Second branch of the encoder, or None.
        output_branch: Output heads of the decoder; None = it returns its features.
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
        encoder_branch: EncoderBranch | None = None,
        output_branch: OutputBranch | None = None,
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
        self.encoder_branch = encoder_branch
        self.output_branch = output_branch
        self.attend_last_only = attend_last_only

    def _block(self, in_channels: int, out_channels: int, *, attention: bool = False) -> UNetBlock:
        return UNetBlock(in_channels, out_channels, style=self.style, attention=attention)

    def build_encoder(self, channels: int) -> list[int]:
        """Fill ``enc``, starting with ``channels``; the channels of every skip connection."""
        self.enc = nn.ModuleDict()
        style, aux = self.style, self.in_channels
        skips = [channels]
        for index, (level, width) in enumerate(zip(self.levels, self.widths, strict=True)):
            if index == 0:
                self.enc[f"{level}_conv"] = Conv2d(
                    self.in_channels, channels, kernel=3, init=style.init
                )
            else:
                self.enc[f"{level}_down"] = UNetBlock(channels, channels, style=style, down=True)
                if self.encoder_branch is not None:
                    branch = self.encoder_branch.modules(aux, channels, style)
                    self.enc.update({f"{level}_{name}": module for name, module in branch.items()})
                    aux = channels if self.encoder_branch.residual else aux
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
                self.dec[f"{level}_up"] = UNetBlock(channels, channels, style=self.style, up=True)
            for block in range(self.num_blocks + 1):
                attends = block == self.num_blocks or not self.attend_last_only
                self.dec[f"{level}_block{block}"] = self._block(
                    channels + skips.pop(), width, attention=self.attention[index] and attends
                )
                channels = width
            output = self.output_branch
            if output is not None and (output.every_level or index == 0):
                head = output.modules(
                    channels, self.out_channels, self.style, coarsest=index == coarsest
                )
                self.dec.update({f"{level}_{name}": module for name, module in head.items()})
        return channels

    def encode(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """Features of every skip connection, in order."""
        aux = x
        skips: list[Tensor] = []
        for index, level in enumerate(self.levels):
            if index == 0:
                x = self.enc[f"{level}_conv"](x)
            else:
                x = self.enc[f"{level}_down"](x, emb)
                if self.encoder_branch is not None:
                    x, aux = self.encoder_branch.merge(x, aux, self.enc, level)
            skips.append(x)
            for block in range(self.num_blocks):
                x = self.enc[f"{level}_block{block}"](x, emb)
                skips.append(x)
        return skips

    def decode(self, skips: list[Tensor], emb: Tensor) -> Tensor:
        """Output of the output branch, or the last features if there is none."""
        x, out = skips[-1], None
        for index, level in reversed(list(enumerate(self.levels))):
            if index == len(self.levels) - 1:
                x = self.dec[f"{level}_in1"](self.dec[f"{level}_in0"](x, emb), emb)
            else:
                x = self.dec[f"{level}_up"](x, emb)
            for block in range(self.num_blocks + 1):
                x = self.dec[f"{level}_block{block}"](torch.cat([x, skips.pop()], dim=1), emb)
            if self.output_branch is not None:
                out = self.output_branch.gather(x, out, self.dec, level)
        return x if out is None else out


EMBEDDINGS: Mapping[str, Callable[[int], nn.Module]] = {
    "positional": lambda channels: PositionalEmbedding(channels, endpoint=True),
    "fourier": FourierEmbedding,
}
ENCODERS: Mapping[str, EncoderBranch | None] = {
    "standard": None,
    "skip": EncoderBranch(residual=False),
    "residual": EncoderBranch(residual=True),
}
DECODERS: Mapping[str, OutputBranch] = {
    "standard": OutputBranch(every_level=False),
    "skip": OutputBranch(every_level=True),
}


def _pick(argument: str, name: str, options: Mapping[str, Choice]) -> Choice:
    if name not in options:
        raise ValueError(f"{argument}={name!r}; allowed: {', '.join(options)}")
    return options[name]


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
        embedding = _pick("embedding_type", embedding_type, EMBEDDINGS)
        encoder_branch = _pick("encoder_type", encoder_type, ENCODERS)
        output_branch = _pick("decoder_type", decoder_type, DECODERS)
        noise, emb = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        init = Init()
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
            encoder_branch=encoder_branch,
            output_branch=output_branch,
            attend_last_only=True,
        )
        self.map_noise = embedding(noise)
        self.map_label = Linear(label_dim, noise) if label_dim else None
        self.map_augment = Linear(augment_dim, noise, bias=False) if augment_dim else None
        self.map_layer0 = Linear(noise, emb)
        self.map_layer1 = Linear(emb, emb)
        self.build_decoder(self.build_encoder(model_channels))

    def evaluate(
        self, x: Tensor, c_noise: Tensor, label: Tensor | None, augment: Tensor | None
    ) -> Tensor:
        # Published weights were trained with the halves in the order sine, cosine.
        cosine, sine = self.map_noise(c_noise).chunk(2, dim=1)
        emb = torch.cat([sine, cosine], dim=1)
        if self.map_label is not None and label is not None:
            emb = emb + self.map_label(label * math.sqrt(self.label_dim))
        if self.map_augment is not None and augment is not None:
            emb = emb + self.map_augment(augment)
        emb = F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))
        return self.decode(self.encode(x, emb), emb)
