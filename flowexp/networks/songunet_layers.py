"""Layers and the residual block of SongUNet and DhariwalUNet, with EDM's parameter names.

Source: Karras et al. 2022, arXiv 2206.00364, appendix F.2, and the names, shapes and initialisation
of the authors' published networks.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.networks.attention_features import AttentionValues

__all__ = [
    "Conv2d",
    "GroupNorm",
    "Init",
    "Linear",
    "Resample",
    "UNetBlock",
    "UNetBlockStyle",
    "kaiming_normal",
    "kaiming_uniform",
    "resample",
    "separable_filter",
    "xavier_uniform",
]

Distribution = Callable[[tuple[int, ...], int, int], Tensor]


def xavier_uniform(shape: tuple[int, ...], fan_in: int, fan_out: int) -> Tensor:
    """U(-1, 1) * sqrt(6 / (fan_in + fan_out)); Glorot and Bengio 2010."""
    return math.sqrt(6 / (fan_in + fan_out)) * (torch.rand(*shape) * 2 - 1)


def kaiming_uniform(shape: tuple[int, ...], fan_in: int, fan_out: int) -> Tensor:
    """U(-1, 1) * sqrt(3 / fan_in); He et al. 2015, arXiv 1502.01852."""
    return math.sqrt(3 / fan_in) * (torch.rand(*shape) * 2 - 1)


def kaiming_normal(shape: tuple[int, ...], fan_in: int, fan_out: int) -> Tensor:
    """N(0, 1 / fan_in); He et al. 2015, arXiv 1502.01852."""
    return math.sqrt(1 / fan_in) * torch.randn(*shape)


@dataclass(frozen=True)
class Init:
    """How weights and biases are initialised: one distribution, two multipliers.

    Args:
        draw: Draws as a function of (shape, fan_in, fan_out).
        weight: Multiplier of the weights.
        bias: Multiplier of the biases, drawn from the same distribution.
    """

    draw: Distribution = xavier_uniform
    weight: float = 1.0
    bias: float = 0.0

    def scaled(self, factor: float) -> "Init":
        """The same distribution with ``factor`` for the weights and no bias."""
        return Init(self.draw, factor, 0.0)


class Linear(nn.Module):
    """Affine map y = W x + b."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, init: Init | None = None
    ) -> None:
        super().__init__()
        init = init or Init()
        fans = (in_features, out_features)
        self.weight = nn.Parameter(init.draw((out_features, in_features), *fans) * init.weight)
        self.bias = nn.Parameter(init.draw((out_features,), *fans) * init.bias) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return F.linear(x, self.weight, self.bias)


class GroupNorm(nn.GroupNorm):
    """Group normalisation of C channels with min(32, C // 4) groups.

    Raises:
        ValueError: If the channels cannot be divided into the groups.
    """

    def __init__(self, num_channels: int, *, eps: float) -> None:
        groups = max(1, min(32, num_channels // 4))
        if num_channels % groups:
            raise ValueError(
                f"num_channels={num_channels} cannot be normalised in {groups} groups; "
                "allowed: multiples of 4 up to 128, multiples of 32 above"
            )
        super().__init__(groups, num_channels, eps=eps)


class Conv2d(nn.Module):
    """Convolution, optionally after resampling by 2 with a fixed filter.

    The bias is added once, after resampling and convolution.

    Args:
        out_channels: Channels of the output; equal to in_channels if kernel is 0.
        kernel: Odd width of the convolution; 0 = resample only.
        up: Double height and width first.
        down: Halve height and width first.
        resample_filter: Coefficients of the separable low-pass filter.
        filter_last: With ``down``: convolve at full resolution, then filter and decimate, with all
            padding put in front (EDM's fused resampling).
        init: Initial values.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        up: bool = False,
        down: bool = False,
        resample_filter: Sequence[float] = (1, 1),
        filter_last: bool = False,
        init: Init | None = None,
    ) -> None:
        super().__init__()
        if up and down:
            raise ValueError("up=True, down=True; allowed: at most one of them")
        init = init or Init()
        self.up, self.down, self.filter_last = up, down, filter_last
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        if kernel:
            fans = (in_channels * kernel**2, out_channels * kernel**2)
            shape = (out_channels, in_channels, kernel, kernel)
            self.weight = nn.Parameter(init.draw(shape, *fans) * init.weight)
            self.bias = nn.Parameter(init.draw((out_channels,), *fans) * init.bias)
        if up or down:
            self.register_buffer("resample_filter", separable_filter(resample_filter))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W')."""
        if self.filter_last and self.down and self.weight is not None:
            return self._convolve_then_filter(x, self.weight)
        if self.up or self.down:
            x = resample(x, self.resample_filter, up=self.up)
        if self.weight is not None:
            x = F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)
        return x

    def _convolve_then_filter(self, x: Tensor, weight: Tensor) -> Tensor:
        padding = weight.shape[-1] // 2 + _filter_padding(self.resample_filter)
        x = _decimate(F.conv2d(x, weight, padding=padding), self.resample_filter, padding=0)
        return x if self.bias is None else x + self.bias.to(x.dtype)[:, None, None]


def separable_filter(taps: Sequence[float]) -> Tensor:
    """The outer product of the taps with themselves, of sum 1, (1, 1, n, n)."""
    line = torch.tensor([float(tap) for tap in taps])
    return (line[:, None] * line[None, :] / line.sum().square())[None, None]


def resample(x: Tensor, kernel: Tensor, *, up: bool) -> Tensor:
    """Double or halve height and width of x, (B, C, H, W), by a low-pass ``kernel`` of sum 1."""
    padding = _filter_padding(kernel)
    if not up:
        return _decimate(x, kernel, padding=padding)
    each = _for_channels(kernel * 4, x)
    return F.conv_transpose2d(x, each, stride=2, padding=padding, groups=x.shape[1])


def _decimate(x: Tensor, kernel: Tensor, *, padding: int) -> Tensor:
    each = _for_channels(kernel, x)
    return F.conv2d(x, each, stride=2, padding=padding, groups=x.shape[1])


def _for_channels(kernel: Tensor, x: Tensor) -> Tensor:
    """The kernel for each channel of x."""
    return kernel.expand(x.shape[1], -1, -1, -1).to(x.dtype)


def _filter_padding(kernel: Tensor) -> int:
    return (kernel.shape[-1] - 1) // 2


class Resample(Conv2d):
    """The step between two levels where no residual block resamples; the condition has no effect.

    With a kernel: down, a convolution of stride 2; up, nearest neighbours and a convolution. With
    ``kernel`` = 0: the mean of 2 x 2 pixels, and nearest neighbours.

    Source: Ho et al. 2020, arXiv 2006.11239, published code; Dhariwal and Nichol 2021, arXiv
        2105.05233 (``conv_resample``).
    """

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """Map x (B, C, H, W) to (B, C, H', W')."""
        if self.down and self.weight is not None:
            return F.conv2d(x, self.weight, self.bias, stride=2, padding=self.weight.shape[-1] // 2)
        return super().forward(x)


@dataclass(frozen=True)
class UNetBlockStyle:
    """What all blocks of one U-Net have in common.

    Args:
        emb_channels: Length of the conditioning vector.
        head_channels: Channels per attention head; None = one head.
        skip_scale: Factor on the sum of branch and shortcut.
        eps: Added to the variance in the norms.
        resample_filter: Coefficients of the filter used when a block resamples.
        resample_proj: Whether a resampling shortcut also has a 1x1 convolution.
        adaptive_scale: Whether the condition scales and shifts (ADM) or is added (DDPM++, NCSN++).
        init: Initial values of the ordinary layers.
        init_zero: Initial values of the layers that end a residual branch.
        init_attn: Initial values of the query-key-value layer.
        resample_kernel: Width of the convolution that resamples between levels, 0 = none; None = a
            residual block resamples.
    """

    emb_channels: int
    head_channels: int | None
    dropout: float
    skip_scale: float
    eps: float
    resample_filter: Sequence[float]
    resample_proj: bool
    adaptive_scale: bool
    init: Init
    init_zero: Init
    init_attn: Init
    resample_kernel: int | None = None


class UNetBlock(nn.Module):
    """Residual block with conditioning, optional resampling and optional self-attention.

    h = conv0(silu(norm0(x)));  p = affine(emb)
    h = silu(norm1(h + p))  or, with adaptive scale,  silu(norm1(h) (1 + scale) + shift)
    y = (conv1(dropout(h)) + skip(x)) * skip_scale
    y = (proj(attention(qkv(norm2(y)))) + y) * skip_scale

    Args:
        style: What the blocks of the network have in common.
        up: Double height and width.
        down: Halve height and width.
        attention: Whether there is self-attention (if there are channels for one head at least).

    Source: Karras et al. 2022, arXiv 2206.00364, figure 8 (DDPM++/NCSN++ block and ADM block).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        style: UNetBlockStyle,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.style = style
        head_channels = style.head_channels or out_channels
        self.heads = out_channels // head_channels if attention else 0
        if self.heads and out_channels % self.heads:
            raise ValueError(
                f"head_channels={head_channels} makes {self.heads} heads of {out_channels} "
                "channels, which is not divisible; allowed: a divisor of the block's channels"
            )
        self.norm0 = GroupNorm(in_channels, eps=style.eps)
        conv = functools.partial(
            Conv2d,
            in_channels,
            out_channels,
            up=up,
            down=down,
            resample_filter=style.resample_filter,
            init=style.init,
        )
        self.conv0 = conv(kernel=3)
        self.affine = Linear(
            style.emb_channels, out_channels * (2 if style.adaptive_scale else 1), init=style.init
        )
        self.norm1 = GroupNorm(out_channels, eps=style.eps)
        self.conv1 = Conv2d(out_channels, out_channels, kernel=3, init=style.init_zero)
        self.skip: Conv2d | None = None
        if in_channels != out_channels or up or down:
            project = in_channels != out_channels or style.resample_proj
            self.skip = conv(kernel=1 if project else 0)
        if self.heads:
            self.norm2 = GroupNorm(out_channels, eps=style.eps)
            self.qkv = Conv2d(out_channels, out_channels * 3, kernel=1, init=style.init_attn)
            self.values = AttentionValues()
            self.proj = Conv2d(out_channels, out_channels, kernel=1, init=style.init_zero)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, in_channels, H, W) and emb (B, emb_channels) to (B, out_channels, H', W')."""
        h: Tensor = self.conv0(F.silu(self.norm0(x)))
        condition = self.affine(emb)[:, :, None, None].to(h.dtype)
        if self.style.adaptive_scale:
            scale, shift = condition.chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        else:
            h = F.silu(self.norm1(h + condition))
        h = self.conv1(F.dropout(h, p=self.style.dropout, training=self.training))
        h = (h + (x if self.skip is None else self.skip(x))) * self.style.skip_scale
        if self.heads:
            h = (h + self.proj(self._attend(self.qkv(self.norm2(h))))) * self.style.skip_scale
        return h

    def _attend(self, qkv: Tensor) -> Tensor:
        """Self-attention over pixels; channel order is head, channel within the head, (q, k, v)."""
        batch, channels, height, width = qkv.shape
        split = qkv.reshape(batch, self.heads, channels // (3 * self.heads), 3, height * width)
        q, k, v = (part.transpose(-1, -2) for part in split.unbind(3))
        # The kernels behind this call keep the softmax in float32 for half-precision inputs too.
        out = F.scaled_dot_product_attention(q, k, self.values(v))
        return out.transpose(-1, -2).reshape(batch, channels // 3, height, width)
