"""Embeddings of the noise condition c_noise, shape (B,), as vectors (B, num_channels), float32.

The number of channels is even. All phases are computed in float32 (or higher), also under
autocast: half precision cannot distinguish c_noise = 999 from 999.5.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConditionEmbedding", "FourierEmbedding", "MultiScaleEmbedding", "PositionalEmbedding",
           "ScalarEmbedding"]  # fmt: skip


def _waves(c_noise: Tensor, freqs: Tensor) -> Tensor:
    """[cos(c f), sin(c f)] for every frequency f in radians per unit of c_noise."""
    c = c_noise if c_noise.dtype == torch.float64 else c_noise.float()
    phase = c[:, None] * freqs.to(c)
    return torch.cat([phase.cos(), phase.sin()], dim=1)


def _check_even(num_channels: int, *, least: int) -> None:
    if num_channels % 2 or num_channels < least:
        raise ValueError(f"num_channels={num_channels}; allowed: even integers >= {least}")


class PositionalEmbedding(nn.Module):
    """Sinusoids with periods from 2 pi to about 2 pi * max_period: [cos, sin].

    f_i = max_period^(-i / (n - endpoint)),  i = 0 .. n-1,  n = num_channels / 2.

    Args:
        endpoint: Whether the last frequency is exactly 1 / max_period (DDPM++) or one step short
            of it (ADM, DiT).
        max_period: Ratio of the highest to the lowest frequency.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5; the two variants as in Karras et al.
        2022, arXiv 2206.00364, published code.
    """

    def __init__(
        self, num_channels: int, *, endpoint: bool = False, max_period: float = 10000.0
    ) -> None:
        super().__init__()
        _check_even(num_channels, least=4 if endpoint else 2)
        self.num_channels = num_channels
        self.endpoint = endpoint
        self.max_period = max_period

    def forward(self, c_noise: Tensor) -> Tensor:
        n = self.num_channels // 2
        i = torch.arange(n, dtype=torch.float32, device=c_noise.device)
        return _waves(c_noise, self.max_period ** (-i / (n - self.endpoint)))


class FourierEmbedding(nn.Module):
    """Random Fourier features: [cos(2 pi f c), sin(2 pi f c)], f ~ N(0, scale^2), not trained.

    Source: Song et al. 2021, arXiv 2011.13456 (NCSN++); Tancik et al. 2020, arXiv 2006.10739.
    """

    freqs: Tensor

    def __init__(self, num_channels: int, *, scale: float = 16.0) -> None:
        super().__init__()
        _check_even(num_channels, least=2)
        self.register_buffer("freqs", torch.randn(num_channels // 2) * scale)

    def forward(self, c_noise: Tensor) -> Tensor:
        return _waves(c_noise, 2 * math.pi * self.freqs.float())


class MultiScaleEmbedding(nn.Module):
    """Fixed sinusoids whose periods cover every c_noise in use: [cos, sin].

    c_noise is ln(sigma/alpha)/4, in about [-1.6, 1.1], or t in [0, 1], by parameterization. Periods
    are spaced geometrically from ``min_period`` to ``max_period``. Much shorter periods would make
    the velocity oscillate in time, which costs an adaptive solver many steps.

    Args:
        min_period: Shortest period, in units of c_noise.
        max_period: Longest period.
    """

    def __init__(
        self, num_channels: int, *, min_period: float = 0.5, max_period: float = 32.0
    ) -> None:
        super().__init__()
        _check_even(num_channels, least=4)
        if not 0 < min_period < max_period:
            raise ValueError(
                f"min_period={min_period}, max_period={max_period}; allowed: 0 < min < max"
            )
        self.num_channels = num_channels
        self.min_period = min_period
        self.max_period = max_period

    def forward(self, c_noise: Tensor) -> Tensor:
        i = torch.linspace(0, 1, self.num_channels // 2, device=c_noise.device)
        periods = self.min_period * (self.max_period / self.min_period) ** i
        return _waves(c_noise, 2 * math.pi / periods)


class ScalarEmbedding(nn.Module):
    """Embedding of further numbers per sample as one vector (B, channels), 0 at initialization.

    ``W1 silu(W0 [waves(s_1), ..., waves(s_k)] + b0)`` with W1 = 0 at initialization. The vector is
    added to the network's embedding of c_noise. A network with scalars thus starts as the same
    function as one without, and can start from its weights. The numbers are of order 1. The
    shortest period is 0.5: flow maps are differentiated in their times, and high frequencies would
    make these derivatives large.

    Args:
        channels: Length of the vector.
        count: How many numbers there are, k.
        waves: Length of the embedding of each.
    """

    def __init__(self, channels: int, *, count: int, waves: int = 32) -> None:
        super().__init__()
        self.waves = MultiScaleEmbedding(waves)
        self.enter = nn.Linear(count * waves, channels)
        self.leave = nn.Linear(channels, channels, bias=False)
        nn.init.zeros_(self.leave.weight)

    def forward(self, scalars: Tensor) -> Tensor:
        """The vector for ``scalars``, (B, count)."""
        waves = torch.cat([self.waves(column) for column in scalars.unbind(1)], dim=1)
        vector: Tensor = self.leave(F.silu(self.enter(waves)))
        return vector


class ConditionEmbedding(nn.Module):
    """The conditions of F as one vector: noise level, label, augmentation and scalars.

    emb = silu(W1 silu(W0 waves(c_noise) + W_label label sqrt(label_dim) + W_augment augment + s))

    The label and augmentation terms have no bias: zeros mean "none", and the factor
    sqrt(label_dim) gives one-hot vectors unit variance (as in EDM). s is the vector of a
    :class:`ScalarEmbedding`, (B, channels), or None.
    """

    def __init__(
        self,
        channels: int,
        *,
        noise_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
    ) -> None:
        super().__init__()
        self.waves = MultiScaleEmbedding(noise_channels)
        self.noise = nn.Linear(noise_channels, channels)
        self.label = nn.Linear(label_dim, channels, bias=False) if label_dim else None
        self.augment = nn.Linear(augment_dim, channels, bias=False) if augment_dim else None
        self.out = nn.Linear(channels, channels)

    def forward(
        self,
        c_noise: Tensor,
        label: Tensor | None,
        augment: Tensor | None,
        scalars: Tensor | None = None,
    ) -> Tensor:
        emb: Tensor = self.noise(self.waves(c_noise))
        if self.label is not None and label is not None:
            emb = emb + self.label(label * math.sqrt(label.shape[1]))
        if self.augment is not None and augment is not None:
            emb = emb + self.augment(augment)
        if scalars is not None:
            emb = emb + scalars
        return F.silu(self.out(F.silu(emb)))
