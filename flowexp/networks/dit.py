"""DiT: the diffusion transformer, as used by SiT, on pixels or latents.

Source: Peebles and Xie 2023, arXiv 2212.09748 (architecture, adaLN-zero); Ma et al. 2024, arXiv
2401.08740 (SiT: the same network for interpolants). Names and shapes of the state dict are those of
the published SiT weights; unlike those, the output has no second half (learn_sigma = False).
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol, Self, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.networks.attention_features import AttentionValues
from flowexp.networks.base import ImageArguments, ImageNetwork, require_at_least, zeroed
from flowexp.networks.embedding import PositionalEmbedding

__all__ = ["Attention", "AttentionRule", "DiT", "sincos_positions"]

NORM_EPS = 1e-6
INIT_STD = 0.02
WAVES = 256


class DiT(ImageNetwork):
    """Vision transformer conditioned through adaptive layer norm that starts as the identity.

    tokens = patches W + sincos position;  c = emb(c_noise) + label row;  blocks;  final layer

    The label table has one more row for "no label". Float label vectors are mixtures of rows.
    Arguments not listed here are those of :class:`ImageNetwork`.

    Args:
        img_resolution: Height and width of the images or latents; calls with other sizes are
            refused, because the position embedding is fixed.
        patch_size: Height and width of a patch in pixels.
        hidden_size: Width of the tokens, a multiple of 4.
        depth: Number of blocks.
        num_heads: Attention heads; divides hidden_size.
        mlp_ratio: Width of the hidden layer of the MLPs over hidden_size.
    """

    pos_embed: Tensor

    def __init__(
        self,
        *,
        patch_size: int = 2,
        hidden_size: int = 256,
        depth: int = 8,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        **image: Unpack[ImageArguments],
    ) -> None:
        require_at_least(1, patch_size=patch_size, depth=depth, num_heads=num_heads)
        if not mlp_ratio * hidden_size >= 1.0:
            raise ValueError(f"mlp_ratio={mlp_ratio}; allowed: a positive number")
        if hidden_size % 4 or hidden_size % num_heads:
            raise ValueError(
                f"hidden_size={hidden_size}; allowed: multiples of 4 and of num_heads={num_heads}"
            )
        super().__init__(min_multiple=patch_size, **image)
        self.patch_size = patch_size
        self.side = self.padded_resolution // patch_size
        self.x_embedder = _Patches(self.input_channels, hidden_size, patch_size=patch_size)
        first = nn.Linear(WAVES, hidden_size)
        mlp = nn.Sequential(first, nn.SiLU(), nn.Linear(hidden_size, hidden_size))
        self.t_embedder = nn.Sequential(OrderedDict(waves=PositionalEmbedding(WAVES), mlp=mlp))
        self.y_embedder = _LabelEmbedder(self.label_dim, hidden_size) if self.label_dim else None
        self.augment_embedder = (
            nn.Linear(self.augment_dim, hidden_size, bias=False) if self.augment_dim else None
        )
        self.register_buffer("pos_embed", sincos_positions(hidden_size, side=self.side)[None])
        self.blocks = nn.ModuleList(
            _Block(self.attention(hidden_size, num_heads=num_heads), hidden_size, mlp_ratio)
            for _ in range(depth)
        )
        self.rules: Sequence[AttentionRule | None] = [None] * depth
        self.final_layer = _FinalLayer(hidden_size, patch_size**2 * self.out_channels)
        self._initialise()
        self.embed_scalars(hidden_size)

    def attention(self, hidden_size: int, *, num_heads: int) -> nn.Module:
        """A block's attention layer, which is called with the tokens (B, side^2, hidden_size)."""
        return Attention(hidden_size, num_heads=num_heads)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                _zero_bias(module)
        patches = self.x_embedder.proj
        nn.init.xavier_uniform_(patches.weight.view(patches.out_channels, -1))
        _zero_bias(patches)
        for module in self.t_embedder.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
        if self.y_embedder is not None:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=INIT_STD)
        zeroed(self.final_layer.linear)
        for module in (*self.blocks, self.final_layer):
            zeroed(module.adaLN_modulation)

    def evaluate(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None,
        augment: Tensor | None,
        scalars: Tensor | None = None,
    ) -> Tensor:
        if x.shape[-2:] != (self.side * self.patch_size,) * 2:
            raise ValueError(
                f"x has size {tuple(x.shape[-2:])} after padding; allowed: img_resolution="
                f"{self.img_resolution} padded to {self.padded_resolution}"
            )
        tokens = self.x_embedder(x) + self.pos_embed
        condition = self.t_embedder(c_noise)
        if self.y_embedder is not None and label is not None:
            condition = condition + self.y_embedder(label)
        if self.augment_embedder is not None and augment is not None:
            condition = condition + self.augment_embedder(augment)
        vector = self.scalar_vector(scalars)
        if vector is not None:
            condition = condition + vector
        tokens = self.through_blocks(tokens, condition)
        return self._unpatchify(self.final_layer(tokens, condition))

    def through_blocks(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """The tokens (B, side^2, hidden_size) after all blocks; condition (B, hidden_size)."""
        for block, rule in zip(self.blocks, self.rules, strict=True):
            tokens = block(tokens, condition, rule)
        return tokens

    def attending(self, rules: Sequence["AttentionRule"]) -> Self:
        """This network, its weights shared, with another attention in each block."""
        attending = copy.copy(self)
        attending.rules = rules
        return attending

    def _unpatchify(self, tokens: Tensor) -> Tensor:
        """Tokens (B, side^2, patch^2 * C), channels last, as images (B, C, H, W)."""
        side, patch = self.side, self.patch_size
        grid = tokens.reshape(-1, side, side, patch, patch, self.out_channels)
        images = grid.permute(0, 5, 1, 3, 2, 4)
        return images.reshape(-1, self.out_channels, side * patch, side * patch)


def sincos_positions(
    channels: int, *, side: int, spacing: float = 1.0, first_row: float = 0.0
) -> Tensor:
    """Fixed 2-D position embedding (side^2, channels), row by row: half for columns, half for rows.

    Each half is [sin(p w), cos(p w)] with w_i = 10000^(-i / n), n = channels / 4. The token in row
    i and column j has p = j spacing and p = i spacing + first_row.

    Source: He et al. 2022, arXiv 2111.06377, published code (column first).
    """
    n = channels // 4
    omega = 10000.0 ** (-torch.arange(n, dtype=torch.float64) / n)
    places = spacing * torch.arange(side, dtype=torch.float64)
    phases = [p[:, None] * omega for p in (places, places + first_row)]
    columns, rows = (torch.cat([phase.sin(), phase.cos()], dim=1) for phase in phases)
    table = [columns[None].expand(side, side, -1), rows[:, None].expand(side, side, -1)]
    return torch.cat(table, dim=2).flatten(0, 1).float()


def _zero_bias(layer: nn.Linear | nn.Conv2d) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


def _modulation(hidden_size: int, outputs: int) -> nn.Sequential:
    """Shifts, scales and gates as an affine function of silu(condition), initially all zero."""
    return nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, outputs * hidden_size))


class _Patches(nn.Module):
    """Non-overlapping patches as tokens."""

    def __init__(self, in_channels: int, hidden_size: int, *, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden_size, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class _LabelEmbedder(nn.Module):
    """Table of label rows; the last row is "no label" (an all-zero vector)."""

    def __init__(self, label_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(label_dim + 1, hidden_size)

    def forward(self, label: Tensor) -> Tensor:
        null = (label == 0).all(dim=1, keepdim=True).to(label.dtype)
        row: Tensor = torch.cat([label, null], dim=1) @ self.embedding_table.weight
        return row


class AttentionRule(Protocol):
    """What a block does in place of its self-attention."""

    def __call__(self, attention: "Attention", tokens: Tensor) -> Tensor:
        """New tokens (B, L, hidden_size) from tokens, by the weights of the block's attention."""


class Attention(nn.Module):
    """Multi-head self-attention over tokens."""

    def __init__(self, hidden_size: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.values = AttentionValues()
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, tokens: Tensor, rule: AttentionRule | None = None) -> Tensor:
        """Tokens (B, L, hidden_size) from such tokens; by ``rule``, if there is one."""
        if rule is not None:
            return rule(self, tokens)
        q, k, v = self.heads(self.qkv(tokens))
        h = F.scaled_dot_product_attention(q, k, self.values(v))
        out: Tensor = self.proj(h.transpose(1, 2).flatten(2))
        return out

    def heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, (B, heads, L, channels), of an output of ``qkv``."""
        batch, length, _ = qkv.shape
        return qkv.reshape(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


class _Block(nn.Module):
    """Transformer block whose two branches are shifted, scaled and gated by the condition."""

    def __init__(self, attention: nn.Module, hidden_size: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size, eps=NORM_EPS, elementwise_affine=False)
        self.attn = attention
        self.norm2 = nn.LayerNorm(hidden_size, eps=NORM_EPS, elementwise_affine=False)
        inner = math.floor(hidden_size * mlp_ratio)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(hidden_size, inner),
                gelu=nn.GELU(approximate="tanh"),
                fc2=nn.Linear(inner, hidden_size),
            )
        )
        self.adaLN_modulation = _modulation(hidden_size, 6)

    def forward(self, tokens: Tensor, condition: Tensor, *context: Any) -> Tensor:  # noqa: ANN401
        """The tokens after the block; ``context`` is what its attention takes besides them."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, 1)
        h = self.attn(_modulate(self.norm1(tokens), shift1, scale1), *context)
        tokens = tokens + gate1[:, None] * h
        h = self.mlp(_modulate(self.norm2(tokens), shift2, scale2))
        out: Tensor = tokens + gate2[:, None] * h
        return out


class _FinalLayer(nn.Module):
    """Last norm and projection of each token to its pixels."""

    def __init__(self, hidden_size: int, pixels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(hidden_size, eps=NORM_EPS, elementwise_affine=False)
        self.linear = nn.Linear(hidden_size, pixels)
        self.adaLN_modulation = _modulation(hidden_size, 2)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=1)
        out: Tensor = self.linear(_modulate(self.norm_final(tokens), shift, scale))
        return out
