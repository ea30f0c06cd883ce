"""UNet: a small, fast U-Net for small images, the network of the quickstart."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.networks.attention_features import AttentionValues
from flowexp.networks.base import ImageArguments, ImageNetwork, require_at_least, zeroed
from flowexp.networks.embedding import ConditionEmbedding

__all__ = ["UNet"]


class UNet(ImageNetwork):
    """U-Net with scale-shift conditioning that can work on a folded image.

    With ``pixel_unshuffle`` = 2 all levels work on the image folded to half its size and four times
    its channels, which is about four times faster. Predicting the folded image directly leaves a
    2 x 2 checkerboard texture, because neighbouring pixels come from different output channels; so
    a head at full resolution follows the unfolding: two 3 x 3 convolutions of the unfolded features
    and the input, which treat all pixels alike.

    Arguments not listed here are those of :class:`ImageNetwork`.

    Args:
        model_channels: Base number of channels, a multiple of 4.
        channel_mult: Channel multiplier of each level, finest first.
        num_blocks: Residual blocks per level of the encoder (the decoder has one more).
        attn_resolutions: Sizes of the feature maps (after folding) with self-attention.
        head_dim: Channels per attention head.
        dropout: Dropout probability in the blocks.
        pixel_unshuffle: Fold factor: 1 = off, 2 = half the size.
        head_channels: Channels of the full-resolution head; unused if pixel_unshuffle is 1.
    """

    def __init__(
        self,
        *,
        model_channels: int = 32,
        channel_mult: Sequence[int] = (1, 2),
        num_blocks: int = 1,
        attn_resolutions: Sequence[int] = (),
        head_dim: int = 32,
        dropout: float = 0.0,
        pixel_unshuffle: int = 2,
        head_channels: int = 16,
        **image: Unpack[ImageArguments],
    ) -> None:
        if pixel_unshuffle not in (1, 2):
            raise ValueError(f"pixel_unshuffle={pixel_unshuffle}; allowed: 1, 2")
        require_at_least(1, head_dim=head_dim)
        if not channel_mult:
            raise ValueError("channel_mult=[]; allowed: at least one level")
        for name, value in (("model_channels", model_channels), ("head_channels", head_channels)):
            if value < 4 or value % 4:
                raise ValueError(f"{name}={value}; allowed: multiples of 4")
        require_at_least(1, num_blocks=num_blocks)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout}; allowed: [0, 1)")
        super().__init__(min_multiple=pixel_unshuffle * 2 ** (len(channel_mult) - 1), **image)
        self.fold = pixel_unshuffle
        self.widths = tuple(model_channels * mult for mult in channel_mult)
        self.num_blocks = num_blocks
        self.emb_channels = 4 * model_channels
        self._block = partial(_Block, emb_channels=self.emb_channels, dropout=dropout)
        finest = self.padded_resolution // pixel_unshuffle
        self.head_dims = tuple(
            head_dim if finest >> level in attn_resolutions else 0
            for level in range(len(self.widths))
        )
        self.embedding = ConditionEmbedding(
            self.emb_channels,
            noise_channels=2 * model_channels,
            label_dim=self.label_dim,
            augment_dim=self.augment_dim,
        )
        self.enter = nn.Conv2d(self.input_channels * self.fold**2, self.widths[0], 3, padding=1)
        skips = self._build_encoder()
        coarsest = self.widths[-1]
        self.middle = self._block(coarsest, coarsest, head_dim=self.head_dims[-1])
        self._build_decoder(skips)
        if self.fold == 1:
            last = zeroed(nn.Conv2d(self.widths[0], self.out_channels, 3, padding=1))
            layers = OrderedDict(norm=_norm(self.widths[0]), silu=nn.SiLU(), conv=last)
            self.head: nn.Module = nn.Sequential(layers)
        else:
            self.head = _UnfoldingHead(self, width=head_channels)
        self.embed_scalars(self.emb_channels)

    def _build_encoder(self) -> list[int]:
        """Fill ``encoder`` and ``downs``; the channels of every skip connection."""
        self.encoder, self.downs = nn.ModuleList(), nn.ModuleList()
        channels = self.widths[0]
        skips = [channels]
        for level, width in enumerate(self.widths):
            if level > 0:
                self.downs.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
                skips.append(channels)
            for _ in range(self.num_blocks):
                self.encoder.append(self._block(channels, width, head_dim=self.head_dims[level]))
                channels = width
                skips.append(channels)
        return skips

    def _build_decoder(self, skips: list[int]) -> None:
        """Fill ``decoder`` and ``ups``, coarsest level first."""
        self.decoder, self.ups = nn.ModuleList(), nn.ModuleList()
        channels = self.widths[-1]
        for level in reversed(range(len(self.widths))):
            width = self.widths[level]
            for _ in range(self.num_blocks + 1):
                self.decoder.append(
                    self._block(channels + skips.pop(), width, head_dim=self.head_dims[level])
                )
                channels = width
            if level > 0:
                # 1x1 before upsampling: a 3x3 after it would cost as much as a whole block.
                self.ups.append(nn.Conv2d(channels, self.widths[level - 1], 1))
                channels = self.widths[level - 1]

    def evaluate(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None,
        augment: Tensor | None,
        scalars: Tensor | None = None,
    ) -> Tensor:
        emb = self.embedding(c_noise, label, augment, self.scalar_vector(scalars))
        h = self.enter(F.pixel_unshuffle(x, self.fold) if self.fold > 1 else x)
        skips = [h]
        blocks = iter(self.encoder)
        for level in range(len(self.widths)):
            if level > 0:
                h = self.downs[level - 1](h)
                skips.append(h)
            for _ in range(self.num_blocks):
                h = next(blocks)(h, emb)
                skips.append(h)
        h = self.middle(h, emb)
        blocks = iter(self.decoder)
        for level in range(len(self.widths)):
            if level > 0:
                h = F.interpolate(self.ups[level - 1](h), scale_factor=2.0, mode="nearest")
            for _ in range(self.num_blocks + 1):
                h = next(blocks)(torch.cat([h, skips.pop()], dim=1), emb)
        out: Tensor = self.head(h) if self.fold == 1 else self.head(h, x, emb)
        return out


def _norm(channels: int) -> nn.GroupNorm:
    """Group norm with at least 4 channels per group; the number of groups divides the channels."""
    groups = min(32, channels // 4)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


class _Block(nn.Module):
    """Residual block with scale-shift conditioning and optional self-attention."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        emb_channels: int,
        dropout: float,
        head_dim: int,
    ) -> None:
        super().__init__()
        self.norm0 = _norm(in_channels)
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.affine = nn.Linear(emb_channels, 2 * out_channels)
        self.norm1 = _norm(out_channels)
        self.dropout = dropout
        self.conv1 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.attention = _Attention(out_channels, head_dim) if head_dim else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        h = F.silu(_scale_shift(self.norm1(h), self.affine(emb)))
        h = self.conv1(F.dropout(h, p=self.dropout, training=self.training))
        out: Tensor = h + (x if self.skip is None else self.skip(x))
        return out if self.attention is None else out + self.attention(out)


class _Attention(nn.Module):
    """Multi-head self-attention over the pixels of a feature map, without the shortcut."""

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        if channels % head_dim:
            raise ValueError(f"head_dim={head_dim} does not divide the {channels} channels")
        self.heads = channels // head_dim
        self.norm = _norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.values = AttentionValues()
        self.proj = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, self.heads, -1, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        h = F.scaled_dot_product_attention(q, k, self.values(v)).transpose(-1, -2)
        out: Tensor = self.proj(h.reshape(batch, channels, height, width))
        return out


class _UnfoldingHead(nn.Module):
    """Output head at full resolution, from folded features and the network input."""

    def __init__(self, unet: UNet, *, width: int) -> None:
        super().__init__()
        self.fold = unet.fold
        self.norm = _norm(unet.widths[0])
        self.unfold = nn.Conv2d(unet.widths[0], width * unet.fold**2, 1)
        self.conv0 = nn.Conv2d(width + unet.input_channels, width, 3, padding=1)
        self.affine = nn.Linear(unet.emb_channels, 2 * width)
        self.conv1 = zeroed(nn.Conv2d(width, unet.out_channels, 3, padding=1))

    def forward(self, h: Tensor, x: Tensor, emb: Tensor) -> Tensor:
        h = F.pixel_shuffle(self.unfold(F.silu(self.norm(h))), self.fold)
        h = self.conv0(torch.cat([h, x.to(h.dtype)], dim=1))
        out: Tensor = self.conv1(F.silu(_scale_shift(h, self.affine(emb))))
        return out


def _scale_shift(h: Tensor, condition: Tensor) -> Tensor:
    """``h (1 + scale) + shift``; ``condition`` is scale and shift concatenated, (B, 2 C)."""
    scale, shift = condition.to(h.dtype)[:, :, None, None].chunk(2, dim=1)
    return torch.addcmul(shift, h, scale + 1)
