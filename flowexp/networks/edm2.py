"""EDM2: the magnitude-preserving U-Net."""

import math
from collections.abc import Sequence
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.networks.attention_features import AttentionValues
from flowexp.networks.base import ImageArguments, ImageNetwork, require_at_least
from flowexp.networks.magnitude_preserving import (
    MPConv,
    MPFourier,
    mp_cat,
    mp_silu,
    mp_sum,
    normalize,
    pixel_norm,
)
from flowexp.networks.songunet_layers import resample, separable_filter

__all__ = ["EDM2UNet", "MPBlock"]


class EDM2UNet(ImageNetwork):
    """U-Net whose activations and weights keep their magnitude throughout the training.

    Levels as in :class:`flowexp.networks.songunet.LeveledUNet`; modules have the names of the
    authors' checkpoints. There are no biases, but a channel of ones beside the input, and no norms
    but that over the channels in encoder blocks. The output is 0 at the start (``out_gain``), as is
    the influence of noise level and label (``emb_gain`` of a block).

    ``emb = mp_silu(mp_sum(MPConv(MPFourier(c_noise)), MPConv(sqrt(label_dim) label), label_balance)
    + a + s)`` where a, of augmentations, and s, of scalars, are 0 without them and not part of
    EDM2; their magnitudes are not preserved.

    Precision: norms and Fourier features are computed in float32 under autocast. Activations stay
    below ``clip_act``, so that float16 and bfloat16 are safe; the authors train in float16 without
    a dynamic loss scale, flowexp has one (``trainer.precision=16-mixed``, CUDA).

    Arguments not listed here are those of :class:`ImageNetwork`.

    Args:
        model_channels: Base number of channels: 128, 192, 256, 320, 384 for XS, S, M, L, XL.
        channel_mult: Channel multiplier of each level, finest first.
        channel_mult_noise: Number of Fourier features over model_channels; None = channel_mult[0].
        channel_mult_emb: Length of emb over model_channels; None = the largest of channel_mult.
        num_blocks: Residual blocks per level of the encoder (the decoder has one more).
        attn_resolutions: Resolutions (after padding) with self-attention, which the first block of
            the decoder has in any case.
        channels_per_head: Channels per attention head; blocks with fewer have no attention.
        dropout: Dropout probability in the blocks, in [0, 1).
        dropout_resolutions: Resolutions (after padding) of the blocks with dropout; None = all.
        label_balance: Share of the label in emb, in [0, 1].
        concat_balance: Share of skip connections in the decoder, in [0, 1].
        res_balance: Share of the residual branch, in [0, 1].
        attn_balance: Share of attention, in [0, 1].
        resample_filter: Taps of the resampling filter, an even number.
        clip_act: Limit of the absolute values that a block returns; None = none.
        bandwidth: Standard deviation of the Fourier frequencies, in periods per unit of c_noise.
        modulation_norm: Whether the modulation of a block is normalised over its channels before
            its gain, so that its size, and that of its time derivative, is bounded (for sCM; EDM2
            weights can be continued, since it is of unit expected magnitude without).

    Raises:
        ValueError: If an argument is out of range.

    Source: Karras et al. 2024, arXiv 2312.02696, configuration G, and the names and shapes of the
        authors' checkpoints. modulation_norm: Lu and Song 2024, arXiv 2410.11081 (adaptive double
        normalisation, there of a scale and a shift; EDM2 has a scale only).
    """

    def __init__(
        self,
        *,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_noise: int | None = None,
        channel_mult_emb: int | None = None,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        channels_per_head: int = 64,
        dropout: float = 0.0,
        dropout_resolutions: Sequence[int] | None = None,
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        resample_filter: Sequence[float] = (1, 1),
        clip_act: float | None = 256.0,
        bandwidth: float = 1.0,
        modulation_norm: bool = False,
        **image: Unpack[ImageArguments],
    ) -> None:
        if not channel_mult:
            raise ValueError("channel_mult=[]; allowed: at least one level")
        require_at_least(1, model_channels=model_channels, num_blocks=num_blocks)
        require_at_least(1, channels_per_head=channels_per_head)
        _require_shares(
            label_balance=label_balance,
            concat_balance=concat_balance,
            res_balance=res_balance,
            attn_balance=attn_balance,
        )
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout}; allowed: [0, 1)")
        if clip_act is not None and not clip_act > 0.0:
            raise ValueError(f"clip_act={clip_act}; allowed: positive numbers or null")
        if len(resample_filter) % 2:
            raise ValueError(f"resample_filter={list(resample_filter)}; allowed: 2, 4, .. taps")
        super().__init__(min_multiple=2 ** (len(channel_mult) - 1), **image)
        widths = [model_channels * mult for mult in channel_mult]
        noise = _times(model_channels, widths[0], channel_mult_noise=channel_mult_noise)
        emb = _times(model_channels, max(widths), channel_mult_emb=channel_mult_emb)
        self.label_balance, self.concat_balance = label_balance, concat_balance
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier = MPFourier(noise, bandwidth=bandwidth)
        self.emb_noise = MPConv(noise, emb, kernel=0)
        self.emb_label = MPConv(self.label_dim, emb, kernel=0) if self.label_dim else None

        def block(channels: int, width: int, resolution: int, **place: bool) -> MPBlock:
            drops = dropout_resolutions is None or resolution in dropout_resolutions
            return MPBlock(
                channels,
                width,
                emb_channels=emb,
                channels_per_head=channels_per_head,
                dropout=dropout if drops else 0.0,
                res_balance=res_balance,
                attn_balance=attn_balance,
                resample_filter=tuple(resample_filter),
                clip_act=clip_act,
                modulation_norm=modulation_norm,
                **place,
            )

        levels = [(self.padded_resolution >> level, w) for level, w in enumerate(widths)]
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        channels, skips = widths[0], list[int]()
        for level, (size, width) in enumerate(levels):
            if level == 0:
                first = MPConv(self.input_channels + 1, channels, kernel=3)
                self.enc[f"{size}x{size}_conv"] = first
            else:
                down = block(channels, channels, size, down=True, encodes=True)
                self.enc[f"{size}x{size}_down"] = down
            skips.append(channels)
            for number in range(num_blocks):
                attends = size in attn_resolutions
                made = block(channels, width, size, attention=attends, encodes=True)
                self.enc[f"{size}x{size}_block{number}"] = made
                channels = width
                skips.append(channels)
        for level, (size, width) in reversed(list(enumerate(levels))):
            name = f"{size}x{size}"
            if level == len(levels) - 1:
                self.dec[f"{name}_in0"] = block(channels, channels, size, attention=True)
                self.dec[f"{name}_in1"] = block(channels, channels, size)
            else:
                self.dec[f"{name}_up"] = block(channels, channels, size, up=True)
            for number in range(num_blocks + 1):
                attends = size in attn_resolutions
                made = block(channels + skips.pop(), width, size, attention=attends)
                self.dec[f"{name}_block{number}"] = made
                channels = width
        self.out_conv = MPConv(channels, self.out_channels, kernel=3)
        self.emb_augment = MPConv(self.augment_dim, emb, kernel=0) if self.augment_dim else None
        self.embed_scalars(emb)

    def evaluate(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None,
        augment: Tensor | None,
        scalars: Tensor | None = None,
    ) -> Tensor:
        emb: Tensor = self.emb_noise(self.emb_fourier(c_noise))
        if self.emb_label is not None and label is not None:
            of_label = self.emb_label(label * math.sqrt(self.label_dim))
            emb = mp_sum(emb, of_label, t=self.label_balance)
        if self.emb_augment is not None and augment is not None:
            emb = emb + self.emb_augment(augment)
        vector = self.scalar_vector(scalars)
        if vector is not None:
            emb = emb + vector
        emb = mp_silu(emb)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        skips = list[Tensor]()
        for layer in self.enc.values():
            x = layer(x, emb) if isinstance(layer, MPBlock) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            if "block" in name:
                x = mp_cat(x, skips.pop(), t=self.concat_balance)
            x = layer(x, emb)
        out: Tensor = self.out_conv(x, gain=self.out_gain)
        return out


class MPBlock(nn.Module):
    """Residual block with modulation by emb, optional resampling and optional self-attention.

    x is resampled; an encoder block then has ``x = pixel_norm(skip(x))``, a decoder block
    ``x = skip(x)`` in the sum, where skip is a 1 x 1 convolution if the channels differ:

    ``c = 1 + emb_gain MPConv(emb)``
    ``y = MPConv(dropout(mp_silu(c MPConv(mp_silu(x)))))``
    ``x = mp_sum(x, y, res_balance);  x = mp_sum(x, attention(x), attn_balance)``

    Queries, keys and values of a head are normalised over its channels.

    Args:
        encodes: Whether it is a block of the encoder.
        attention: Whether there is self-attention (if there are channels for one head at least).

    Other arguments are those of :class:`EDM2UNet`.

    Raises:
        ValueError: The heads do not divide the channels.

    Source: Karras et al. 2024, arXiv 2312.02696, figure 13 (configuration G).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        emb_channels: int,
        encodes: bool = False,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
        channels_per_head: int = 64,
        dropout: float = 0.0,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        resample_filter: Sequence[float] = (1, 1),
        clip_act: float | None = 256.0,
        modulation_norm: bool = False,
    ) -> None:
        super().__init__()
        heads = out_channels // channels_per_head if attention else 0
        if heads and out_channels % heads:
            raise ValueError(
                f"channels_per_head={channels_per_head} makes {heads} heads of {out_channels} "
                "channels, which is not divisible; allowed: a divisor of the block's channels"
            )
        self.encodes, self.up, self.down, self.heads = encodes, up, down, heads
        self.dropout, self.clip_act = dropout, clip_act
        self.res_balance, self.attn_balance = res_balance, attn_balance
        self.resample_filter = tuple(resample_filter)
        self.modulation_norm = modulation_norm
        self.emb_gain = nn.Parameter(torch.zeros([]))
        first = out_channels if encodes else in_channels
        self.conv_res0 = MPConv(first, out_channels, kernel=3)
        self.emb_linear = MPConv(emb_channels, out_channels, kernel=0)
        self.conv_res1 = MPConv(out_channels, out_channels, kernel=3)
        self.conv_skip = (
            MPConv(in_channels, out_channels, kernel=1) if in_channels != out_channels else None
        )
        if heads:
            self.attn_qkv = MPConv(out_channels, 3 * out_channels, kernel=1)
            self.values = AttentionValues()
            self.attn_proj = MPConv(out_channels, out_channels, kernel=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, in_channels, H, W) and emb (B, emb_channels) to (B, out_channels, H', W')."""
        if self.up or self.down:
            kernel = separable_filter(self.resample_filter).to(x)
            x = resample(x, kernel, up=self.up)
        if self.encodes:
            x = pixel_norm(x if self.conv_skip is None else self.conv_skip(x))
        y = self.conv_res0(mp_silu(x))
        y = mp_silu(y * self._modulation(emb)[:, :, None, None].to(y.dtype))
        y = self.conv_res1(F.dropout(y, p=self.dropout, training=self.training))
        if not self.encodes and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mp_sum(x, y, t=self.res_balance)
        if self.heads:
            x = mp_sum(x, self.attn_proj(self._attend(self.attn_qkv(x))), t=self.attn_balance)
        return x if self.clip_act is None else x.clamp(-self.clip_act, self.clip_act)

    def _modulation(self, emb: Tensor) -> Tensor:
        """The factor of every channel, (B, out_channels)."""
        if self.modulation_norm:
            return 1.0 + pixel_norm(self.emb_linear(emb)) * self.emb_gain
        modulation: Tensor = 1.0 + self.emb_linear(emb, gain=self.emb_gain)
        return modulation

    def _attend(self, qkv: Tensor) -> Tensor:
        """Self-attention over pixels; channel order is head, channel within the head, (q, k, v)."""
        batch, channels, height, width = qkv.shape
        split = qkv.reshape(batch, self.heads, channels // (3 * self.heads), 3, height * width)
        q, k, v = (part.transpose(-1, -2) for part in normalize(split, dim=2).unbind(3))
        # The kernels behind this call keep the softmax in float32 for half-precision inputs too.
        out = F.scaled_dot_product_attention(q, k, self.values(v))
        return out.transpose(-1, -2).reshape(batch, channels // 3, height, width)


def _times(channels: int, default: int, **factor: int | None) -> int:
    """``channels`` times the one factor; the default if it is None."""
    ((name, value),) = factor.items()
    if value is None:
        return default
    require_at_least(1, **{name: value})
    return channels * value


def _require_shares(**shares: float) -> None:
    for name, value in shares.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}={value}; allowed: [0, 1]")
