"""MLP for points in a few dimensions (toy distributions)."""

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.networks.base import Network, NetworkArguments, zeroed
from flowexp.networks.embedding import ConditionEmbedding

__all__ = ["MLP"]


class MLP(Network):
    """Residual multilayer perceptron on points (B, in_channels).

    h <- h + W1 silu((1 + scale) W0 silu(norm(h)) + shift),  scale, shift = affine(emb)

    Arguments not listed here are those of :class:`Network`.

    Args:
        hidden: Width of the network.
        depth: Number of residual blocks.
        noise_channels: Length of the sinusoidal embedding of c_noise.
    """

    def __init__(
        self,
        *,
        hidden: int = 128,
        depth: int = 3,
        noise_channels: int = 64,
        **network: Unpack[NetworkArguments],
    ) -> None:
        super().__init__(**network)
        if hidden < 1 or depth < 1:
            raise ValueError(f"hidden={hidden}, depth={depth}; allowed: integers >= 1")
        if self.condition_dropout:
            raise ValueError(f"conditions={[*self.condition_dropout]}; allowed: none, for points")
        self.embedding = ConditionEmbedding(
            hidden,
            noise_channels=noise_channels,
            label_dim=self.label_dim,
            augment_dim=self.augment_dim,
        )
        self.enter = nn.Linear(self.in_channels, hidden)
        self.blocks = nn.ModuleList(_Block(hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden)
        self.leave = zeroed(nn.Linear(hidden, self.out_channels))
        self.embed_scalars(hidden)

    def evaluate(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None,
        augment: Tensor | None,
        scalars: Tensor | None = None,
    ) -> Tensor:
        if x.ndim != 2:
            raise ValueError(f"x has shape {tuple(x.shape)}; allowed: (B, {self.in_channels})")
        emb = self.embedding(c_noise, label, augment, self.scalar_vector(scalars))
        h = self.enter(x)
        for block in self.blocks:
            h = block(h, emb)
        out: Tensor = self.leave(F.silu(self.norm(h)))
        return out


class _Block(nn.Module):
    """One residual block of :class:`MLP`."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.linear0 = nn.Linear(hidden, hidden)
        self.affine = nn.Linear(hidden, 2 * hidden)
        self.linear1 = zeroed(nn.Linear(hidden, hidden))

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.affine(emb).chunk(2, dim=1)
        inner = self.linear0(F.silu(self.norm(h)))
        out: Tensor = h + self.linear1(F.silu(torch.addcmul(shift, inner, scale + 1)))
        return out
