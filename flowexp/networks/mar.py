"""MAR: a masked autoregressive transformer with a small diffusion network for each token.

Source: Li et al., Autoregressive Image Generation without Vector Quantization, 2024, arXiv
2406.11838, and their code. Here one bidirectional transformer takes the place of their encoder of
the known tokens and decoder of all (a masked autoencoder's), and one class token that of 64.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Required, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.networks.base import ImageNetwork, require_at_least, zeroed
from flowexp.networks.conditions import Condition, Image, Mask
from flowexp.networks.dit import sincos_positions
from flowexp.networks.embedding import MultiScaleEmbedding

__all__ = ["MAR", "DiffusionHead"]

INIT_STD = 0.02
NORM_EPS = 1e-6


class _Arguments(TypedDict, total=False):
    """As :class:`flowexp.networks.base.ImageArguments`, without those that MAR states itself."""

    img_resolution: Required[int]
    out_channels: Required[int]
    label_dim: int
    label_dropout: float
    augment_dim: int
    scalars: Sequence[str]


class MAR(ImageNetwork):
    """``F_i(x_t, c_noise; known tokens) = head(x_t,i, c_noise, z_i)``, ``z = backbone(known)``.

    Tokens are patches, row by row. The backbone sees the known tokens, a learned one in the place
    of each unknown one, positions and the class, but no noise level: its vectors z serve every step
    of the head, which sees one token at a time. As a function of images, F takes the conditions
    ``image`` and ``mask`` (+1 or 0 where unknown, -1 where known); without them nothing is known.
    Arguments not listed here are those of :class:`ImageNetwork`; it has no ``scalars`` and no
    ``conditions`` but those two.

    Args:
        in_channels: Channels of the images.
        img_resolution: Height and width of the images, a multiple of ``patch_size``; calls with
            other sizes are refused, because the positions are fixed.
        patch_size: Height and width of a token in pixels.
        hidden_size: Width of the backbone, a multiple of 4 and of ``num_heads``.
        depth: Number of the backbone's blocks.
        num_heads: Attention heads.
        mlp_ratio: Width of the hidden layer of the blocks over ``hidden_size``.
        head_width: Width of the diffusion head.
        head_depth: Number of its residual blocks.

    Attributes:
        draws_tokens: Whether tokens can be drawn one after the other, see ``sampler=mar``.
        tokens: Number of tokens of an image.
    """

    later_options: ClassVar[Mapping[str, object]] = {}
    takes_scalars = False
    draws_tokens = True

    positions: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        patch_size: int = 4,
        hidden_size: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        head_width: int = 128,
        head_depth: int = 3,
        conditions: Mapping[str, Condition] | None = None,
        **image: Unpack[_Arguments],
    ) -> None:
        sizes = {"patch_size": patch_size, "depth": depth, "num_heads": num_heads}
        require_at_least(1, **sizes, head_width=head_width, head_depth=head_depth)
        if not mlp_ratio * hidden_size >= 1.0:
            raise ValueError(f"mlp_ratio={mlp_ratio}; allowed: a positive number")
        if hidden_size % 4 or hidden_size % num_heads:
            raise ValueError(
                f"hidden_size={hidden_size}; allowed: multiples of 4 and of num_heads={num_heads}"
            )
        if conditions:
            raise ValueError(f"conditions={list(conditions)}; allowed: none, it has its own")
        known = {"image": Image(channels=in_channels), "mask": Mask()}
        super().__init__(
            in_channels=in_channels, min_multiple=patch_size, conditions=known, **image
        )
        if self.img_resolution % patch_size:
            raise ValueError(
                f"img_resolution={self.img_resolution}; allowed: multiples of patch_size="
                f"{patch_size}"
            )
        self.patch_size = patch_size
        self.side = self.img_resolution // patch_size
        self.tokens = self.side**2
        self.enter = nn.Linear(self.in_channels * patch_size**2, hidden_size)
        self.unknown = nn.Parameter(torch.empty(hidden_size))
        self.class_token = nn.Parameter(torch.empty(hidden_size))
        self.label = nn.Linear(self.label_dim, hidden_size, bias=False) if self.label_dim else None
        self.augment = (
            nn.Linear(self.augment_dim, hidden_size, bias=False) if self.augment_dim else None
        )
        self.register_buffer("positions", sincos_positions(hidden_size, side=self.side))
        block = nn.TransformerEncoderLayer(
            hidden_size,
            num_heads,
            dim_feedforward=int(mlp_ratio * hidden_size),
            dropout=0.0,
            activation=F.gelu,
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(
            block, depth, norm=nn.LayerNorm(hidden_size, eps=NORM_EPS), enable_nested_tensor=False
        )
        self.head = DiffusionHead(
            self.in_channels * patch_size**2,
            self.out_channels * patch_size**2,
            context=hidden_size,
            width=head_width,
            depth=head_depth,
        )
        self._initialise()

    def _initialise(self) -> None:
        for token in (self.unknown, self.class_token):
            nn.init.normal_(token, std=INIT_STD)
        # the blocks of an encoder are copies of one, so that they begin with the same weights
        for module in (self.enter, *self.blocks.modules()):
            if isinstance(module, nn.MultiheadAttention):
                nn.init.xavier_uniform_(module.in_proj_weight)
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for embedding in (self.label, self.augment):
            if embedding is not None:
                nn.init.normal_(embedding.weight, std=INIT_STD)

    def evaluate(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None,
        augment: Tensor | None,
        scalars: Tensor | None = None,
    ) -> Tensor:
        if x.shape[-2:] != (self.img_resolution,) * 2:
            raise ValueError(
                f"x has size {tuple(x.shape[-2:])}; allowed: img_resolution={self.img_resolution}"
            )
        channels = self.in_channels
        state, image, mask = x[:, :channels], x[:, channels : 2 * channels], x[:, 2 * channels :]
        known = (self.to_tokens(mask) < 0.0).all(dim=2)
        context = self._backbone(self.to_tokens(image), known, label, augment)
        every = c_noise.repeat_interleave(self.tokens)
        out = self.head(self.to_tokens(state).flatten(0, 1), every, context=context.flatten(0, 1))
        return self.to_images(out.reshape(len(x), self.tokens, -1))

    def context(self, tokens: Tensor, known: Tensor, labels: Tensor | None = None) -> Tensor:
        """The backbone's vectors z of all tokens, (B, L, hidden_size), for :attr:`head`.

        Args:
            tokens: Clean tokens, (B, L, D); read where they are known.
            known: Which are known, (B, L), bool.
            labels: As of :meth:`forward`.
        """
        tokens = tokens.to(self.enter.weight.dtype)
        return self._backbone(tokens, known, self._label_condition(labels, tokens), None)

    def _backbone(
        self, tokens: Tensor, known: Tensor, label: Tensor | None, augment: Tensor | None
    ) -> Tensor:
        seen = torch.where(known[..., None], self.enter(tokens), self.unknown)
        first = self.class_token.expand(len(tokens), -1)
        if self.label is not None and label is not None:
            first = first + self.label(label)
        if self.augment is not None and augment is not None:
            first = first + self.augment(augment)
        out: Tensor = self.blocks(torch.cat([first[:, None], seen + self.positions], dim=1))
        return out[:, 1:]

    def to_tokens(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) as tokens (B, L, C patch^2), L = H W / patch^2."""
        return F.pixel_unshuffle(images, self.patch_size).flatten(2).transpose(1, 2)

    def to_images(self, tokens: Tensor) -> Tensor:
        """The inverse of :meth:`to_tokens`."""
        grid = tokens.transpose(1, 2).reshape(len(tokens), -1, self.side, self.side)
        return F.pixel_shuffle(grid, self.patch_size)


class DiffusionHead(nn.Module):
    """F of single tokens: an MLP of residual blocks modulated by noise level and context.

    ``h = W x``, ``h <- h + gate MLP(shift + (1 + scale) norm(h))``, with shift, scale and gate
    affine in ``silu(emb(c_noise) + W z)``, and 0 at initialization, as is the last layer.

    Args:
        inputs, outputs: Length of a token, and of F.
        context: Length of z.
        width: Width of the blocks.
        depth: Number of blocks.

    Source: as of the module, SimpleMLPAdaLN in the authors' diffloss.py.
    """

    def __init__(
        self, inputs: int, outputs: int, *, context: int, width: int, depth: int, waves: int = 64
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.time = nn.Sequential(
            MultiScaleEmbedding(waves), nn.Linear(waves, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.read = nn.Linear(context, width)
        self.blocks = nn.ModuleList(_ResidualBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.leave = zeroed(nn.Linear(width, outputs))

    def forward(self, x: Tensor, c_noise: Tensor, *, context: Tensor) -> Tensor:
        """F, (N, outputs), of tokens x (N, inputs) at c_noise (N,), given z (N, context)."""
        condition = F.silu(self.time(c_noise) + self.read(context))
        h = self.enter(x)
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.modulation(condition).chunk(2, dim=1)
        out: Tensor = self.leave(torch.addcmul(shift, self.norm(h), 1.0 + scale))
        return out


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = zeroed(nn.Linear(width, 3 * width))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, dim=1)
        inner = self.mlp(torch.addcmul(shift, self.norm(h), 1.0 + scale))
        return torch.addcmul(h, gate, inner)
