"""The residual block shared by SongUNet and DhariwalUNet, with EDM's parameter names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.networks.attention_features import AttentionValues
from flowexp.networks.songunet_layers import Conv2d, GroupNorm, Init, Linear

__all__ = ["UNetBlock", "UNetBlockStyle"]


@dataclass(frozen=True)
class UNetBlockStyle:
    """What all blocks of one U-Net have in common.

    Args:
        emb_channels: Length of the conditioning vector.
        heads: Number of attention heads as a function of the channels; 0 = no attention.
        dropout: Dropout probability.
        skip_scale: Factor on the sum of branch and shortcut.
        eps: Added to the variance in the norms.
        resample_filter: Coefficients of the filter used when a block resamples.
        resample_proj: Whether a resampling shortcut also has a 1x1 convolution.
        adaptive_scale: Whether the condition scales and shifts (ADM) or is added (DDPM++, NCSN++).
        init: Start values of the ordinary layers.
        init_zero: Start values of the layers that end a residual branch.
        init_attn: Start values of the query-key-value layer.
    """

    emb_channels: int
    heads: Callable[[int], int]
    dropout: float
    skip_scale: float
    eps: float
    resample_filter: Sequence[float]
    resample_proj: bool
    adaptive_scale: bool
    init: Init
    init_zero: Init
    init_attn: Init


class UNetBlock(nn.Module):
    """Residual block with conditioning, optional resampling and optional self-attention.

    h = conv0(silu(norm0(x)));  p = affine(emb)
    h = silu(norm1(h + p))  or, with adaptive scale,  silu(norm1(h) (1 + scale) + shift)
    y = (conv1(dropout(h)) + skip(x)) * skip_scale
    y = (proj(attention(qkv(norm2(y)))) + y) * skip_scale

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        style: What the blocks of the network have in common.
        up: Double height and width.
        down: Halve height and width.
        attention: Whether there is self-attention (if the style gives it any heads).

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
        self.heads = style.heads(out_channels) if attention else 0
        self.norm0 = GroupNorm(in_channels, eps=style.eps)
        resampling = {"up": up, "down": down}
        self.conv0 = Conv2d(
            in_channels,
            out_channels,
            kernel=3,
            resample_filter=style.resample_filter,
            init=style.init,
            **resampling,
        )
        self.affine = Linear(
            style.emb_channels, out_channels * (2 if style.adaptive_scale else 1), init=style.init
        )
        self.norm1 = GroupNorm(out_channels, eps=style.eps)
        self.conv1 = Conv2d(out_channels, out_channels, kernel=3, init=style.init_zero)
        self.skip: Conv2d | None = None
        if in_channels != out_channels or up or down:
            project = in_channels != out_channels or style.resample_proj
            self.skip = Conv2d(
                in_channels,
                out_channels,
                kernel=1 if project else 0,
                resample_filter=style.resample_filter,
                init=style.init,
                **resampling,
            )
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
