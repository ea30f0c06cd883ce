"""Layers shared by SongUNet and DhariwalUNet, with the parameter names of EDM's checkpoints.

Source: Karras et al. 2022, arXiv 2206.00364, appendix F.2, and the names, shapes and initialisation
of the authors' published networks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Conv2d",
    "GroupNorm",
    "Init",
    "Linear",
    "kaiming_normal",
    "kaiming_uniform",
    "xavier_uniform",
]

Law = Callable[[tuple[int, ...], int, int], Tensor]


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
    """How weights and biases start: one law, two multipliers.

    Args:
        law: Distribution as a function of (shape, fan_in, fan_out).
        weight: Multiplier of the weights.
        bias: Multiplier of the biases, drawn from the same law.
    """

    law: Law = xavier_uniform
    weight: float = 1.0
    bias: float = 0.0

    def scaled(self, factor: float) -> "Init":
        """The same law with ``factor`` for the weights and no bias."""
        return Init(self.law, factor, 0.0)


class Linear(nn.Module):
    """Affine map y = W x + b.

    Args:
        in_features: Length of the input.
        out_features: Length of the output.
        bias: Whether there is a b.
        init: Law of the start values.
    """

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, init: Init | None = None
    ) -> None:
        super().__init__()
        init = init or Init()
        fans = (in_features, out_features)
        self.weight = nn.Parameter(init.law((out_features, in_features), *fans) * init.weight)
        self.bias = nn.Parameter(init.law((out_features,), *fans) * init.bias) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return F.linear(x, self.weight, self.bias)


class GroupNorm(nn.GroupNorm):
    """Group normalisation with min(32, C // 4) groups.

    Args:
        num_channels: Number of channels C; a multiple of the number of groups.
        eps: Added to the variance.

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
        in_channels: Channels of the input.
        out_channels: Channels of the output; equal to in_channels if kernel is 0.
        kernel: Odd width of the convolution; 0 = resample only.
        up: Double height and width first.
        down: Halve height and width first.
        resample_filter: Coefficients of the separable low-pass filter.
        filter_last: With ``down``: convolve at full resolution, then filter and decimate, with all
            padding put in front (EDM's fused resampling).
        init: Law of the start values.
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
            self.weight = nn.Parameter(init.law(shape, *fans) * init.weight)
            self.bias = nn.Parameter(init.law((out_channels,), *fans) * init.bias)
        if up or down:
            taps = torch.tensor([float(tap) for tap in resample_filter])
            self.register_buffer("resample_filter", _separable(taps))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W')."""
        if self.filter_last and self.down and self.weight is not None:
            return self._convolve_then_filter(x, self.weight)
        if self.up:
            x = self._upsample(x)
        if self.down:
            x = self._downsample(x, padding=self._filter_padding)
        if self.weight is not None:
            x = F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)
        return x

    @property
    def _filter_padding(self) -> int:
        return (self.resample_filter.shape[-1] - 1) // 2

    def _depthwise(self, channels: int) -> Tensor:
        return self.resample_filter.expand(channels, -1, -1, -1)

    def _upsample(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self._depthwise(channels).to(x.dtype) * 4
        return F.conv_transpose2d(
            x, kernel, stride=2, padding=self._filter_padding, groups=channels
        )

    def _downsample(self, x: Tensor, *, padding: int) -> Tensor:
        channels = x.shape[1]
        kernel = self._depthwise(channels).to(x.dtype)
        return F.conv2d(x, kernel, stride=2, padding=padding, groups=channels)

    def _convolve_then_filter(self, x: Tensor, weight: Tensor) -> Tensor:
        padding = weight.shape[-1] // 2 + self._filter_padding
        x = self._downsample(F.conv2d(x, weight, padding=padding), padding=0)
        return x if self.bias is None else x + self.bias.to(x.dtype)[:, None, None]


def _separable(taps: Tensor) -> Tensor:
    """outer(f, f) / sum(f)^2 as a kernel (1, 1, k, k)."""
    return (taps[:, None] * taps[None, :] / taps.sum().square())[None, None]
