"""The levels that SongUNet and DhariwalUNet share: encoder, decoder, names of the state dict."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowexp.networks.base import ImageNetwork
from flowexp.networks.songunet_block import UNetBlock, UNetBlockStyle
from flowexp.networks.songunet_branches import EncoderBranch, OutputBranch
from flowexp.networks.songunet_layers import Conv2d

__all__ = ["LeveledUNet"]


class LeveledUNet(ImageNetwork):
    """U-Net with level l at resolution R / 2^l and model_channels * channel_mult[l] channels.

    R is ``img_resolution`` rounded up to a multiple of 2^(levels - 1). The modules are named by the
    resolution of their level (``enc.32x32_block0``), as in EDM's checkpoints, and registered in the
    order in which a subclass calls ``build_encoder`` and ``build_decoder``.

    Args:
        img_resolution: Height and width of the images in pixels.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        label_dim: Number of classes or length of the label vectors; 0 = unconditional.
        label_dropout: Probability of dropping a label in training.
        augment_dim: Length of the augmentation vectors; 0 = none.
        model_channels: Base number of channels.
        channel_mult: Channel multiplier of each level, finest first.
        num_blocks: Residual blocks per level.
        attn_resolutions: Resolutions (after padding) with self-attention.
        style: What all blocks have in common.
        encoder_branch: How the input joins the encoder a second time.
        output_branch: How the decoder ends on each level; None = it returns its features.
        attend_last_only: Whether only the last decoder block of a level has attention.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int,
        label_dropout: float,
        augment_dim: int,
        model_channels: int,
        channel_mult: Sequence[int],
        num_blocks: int,
        attn_resolutions: Sequence[int],
        style: UNetBlockStyle,
        encoder_branch: EncoderBranch,
        output_branch: OutputBranch | None,
        attend_last_only: bool,
    ) -> None:
        if not channel_mult:
            raise ValueError("channel_mult=[]; allowed: at least one level")
        if num_blocks < 1:
            raise ValueError(f"num_blocks={num_blocks}; allowed: integers >= 1")
        if not 0.0 <= style.dropout < 1.0:
            raise ValueError(f"dropout={style.dropout}; allowed: [0, 1)")
        super().__init__(
            img_resolution=img_resolution,
            min_multiple=2 ** (len(channel_mult) - 1),
            in_channels=in_channels,
            out_channels=out_channels,
            label_dim=label_dim,
            label_dropout=label_dropout,
            augment_dim=augment_dim,
        )
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
                branch, aux = self.encoder_branch.modules(
                    aux, channels, resample_filter=style.resample_filter, init=style.init
                )
                self.enc.update({f"{level}_{name}": module for name, module in branch.items()})
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
            if self.output_branch is not None:
                output = self.output_branch.modules(
                    channels,
                    self.out_channels,
                    finest=index == 0,
                    coarsest=index == coarsest,
                    style=self.style,
                )
                self.dec.update({f"{level}_{name}": module for name, module in output.items()})
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
                x, aux = self.encoder_branch.merge(x, aux, modules=self.enc, level=level)
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
                out = self.output_branch.gather(x, out, modules=self.dec, level=level)
        return x if out is None else out
