"""Networks conditioned on captions: tokens, a frozen text encoder, and any network of images.

Captions are passed as the condition ``tokens``: int64 (B, L), where a row of -1 means "no caption",
like -1 for labels. Tokenizer (a part of the task) and encoder must agree on the numbers; both can
be the user's own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.networks.base import NO_LABEL, Network, require_at_least

__all__ = ["CaptionedNetwork", "TextEncoder", "WordEncoder"]


class TextEncoder(Protocol):
    """A text encoder; an ``nn.Module`` is frozen and moved to the device of the images."""

    def __call__(self, tokens: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """Features (B, L, width) and a mask (B, L), True at valid tokens, of tokens (B, L).

        Without a mask all tokens are valid.
        """


class WordEncoder(nn.Module, TextEncoder):
    """A fixed random vector per word: the smallest encoder that distinguishes captions.

    It makes captions usable without a pretrained encoder, and is the same everywhere, so that runs
    need not store it.

    Args:
        vocabulary: Number of token ids, >= 2; id 0 is padding.
        width: Length of the features, >= 1.
        seed: Which random vectors.

    Raises:
        ValueError: A number is out of range.
    """

    table: Tensor

    def __init__(self, *, vocabulary: int = 4096, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        require_at_least(2, vocabulary=vocabulary)
        require_at_least(1, width=width)
        rng = torch.Generator(device="cpu").manual_seed(seed)
        drawn = torch.randn(vocabulary, width, generator=rng, device="cpu")
        self.register_buffer("table", drawn)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The words' vectors, and a mask of the positions that are words."""
        return self.table[tokens], tokens > 0


class CaptionedNetwork(Network):
    """A network of images conditioned on a vector of a caption's features.

    The features are pooled over the caption's tokens by attention with learned queries, and
    ``LayerNorm(W pooled) / sqrt(label_dim)``, of length 1 like a one-hot label, replaces the inner
    network's label vector. "No caption" is the zero vector, its "no label". Captions are dropped in
    training as labels are, so that guidance works the same way.

    Args:
        network: The inner network; its ``label_dim`` is the length of the vector, it drops no
            labels itself, and takes single images.
        encoder: The frozen text encoder, not part of the weights and checkpoints.
        width: Length of the encoder's features.
        heads: Number of learned queries.
        label_dim: Number of classes behind the captions; 0 = the data have no classes.
        label_dropout: Probability of dropping a caption in training.

    Raises:
        UsageError: No encoder is given.
        ValueError: A number is out of range, or the inner network takes no label vectors.
    """

    takes_tokens = True

    def __init__(
        self,
        *,
        network: Network,
        encoder: TextEncoder | None,
        width: int,
        heads: int = 4,
        label_dim: int = 0,
        label_dropout: float = 0.0,
    ) -> None:
        if encoder is None:
            raise UsageError(
                "captions need a text encoder, but none is given.",
                key="network.encoder",
                remedy="Use network/encoder=words, or give a _target_ that maps tokens (B, L) to "
                "features (B, L, width).",
            )
        super().__init__(
            in_channels=network.in_channels,
            out_channels=network.out_channels,
            label_dim=label_dim,
            label_dropout=label_dropout,
            augment_dim=network.augment_dim,
            scalars=network.scalars,
        )
        if network.label_dim < 1 or network.label_dropout > 0.0:
            raise ValueError(
                f"the inner network has label_dim={network.label_dim} and label_dropout="
                f"{network.label_dropout}; allowed: a positive label_dim, and no dropout of its own"
            )
        if network.sequence > 1:
            raise ValueError(
                f"the inner network has sequence={network.sequence}; allowed: 1, single images"
            )
        require_at_least(1, width=width, heads=heads)
        self.network = network
        self.img_resolution = network.img_resolution
        self.condition_dropout = network.condition_dropout
        self.width = width
        self.queries = nn.Parameter(torch.randn(heads, width) / math.sqrt(width))
        self.project = nn.Linear(heads * width, network.label_dim)
        if isinstance(encoder, nn.Module):
            encoder.eval().requires_grad_(False)
        # In a list, so that it enters neither the state dict nor the optimizer.
        self._encoder: Sequence[TextEncoder] = [encoder]
        self._device = torch.device("cpu")

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        scalars: Mapping[str, Tensor] | None = None,
        *,
        tokens: Tensor | None = None,
        **conditions: Tensor | None,
    ) -> Tensor:
        """F; see :meth:`Network.forward`.

        ``tokens`` are int64 (B, L), rows of -1 for "no caption", None = no caption anywhere.
        ``labels``, the classes behind the captions, are not used. The other conditions are those of
        the inner network.
        """
        vectors = None if tokens is None else self.caption_vectors(tokens, x)
        noise = c_noise if c_noise.dtype == torch.float64 else c_noise.float()
        columns = self._columns(scalars or {}, noise) if self.scalars or scalars else None
        return self.evaluate(x, c_noise, vectors, augment_labels, columns, **conditions)

    def evaluate(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None,
        augment: Tensor | None,
        scalars: Tensor | None = None,
        **conditions: Tensor | None,
    ) -> Tensor:
        named = None if scalars is None else dict(zip(self.scalars, scalars.unbind(1), strict=True))
        output: Tensor = self.network(x, c_noise, label, augment, named, **conditions)
        return output

    def caption_vectors(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Vectors (B, network.label_dim) of captions, zeros for "no caption".

        Raises:
            ValueError: The tokens are not int64 (B, L), or the features have another width.
        """
        if tokens.ndim != 2 or len(tokens) not in (1, len(x)) or tokens.is_floating_point():
            raise ValueError(
                f"tokens has shape {tuple(tokens.shape)} and dtype {tokens.dtype}; allowed: "
                f"integer ({len(x)}, L), rows of -1 for no caption"
            )
        tokens = tokens.to(x.device).expand(len(x), -1)
        features, mask = self._encoded(tokens.clamp(min=0))
        mask = mask & (tokens != NO_LABEL).any(dim=1, keepdim=True)
        known = mask.any(dim=1, keepdim=True)
        if self.training and self.label_dropout > 0.0:
            known = known & (torch.rand(len(x), 1, device=x.device) >= self.label_dropout)
        scores = features @ self.queries.T / math.sqrt(self.width)
        # Rows without a word would be all -inf.
        hidden = ~mask & mask.any(dim=1, keepdim=True)
        shares = torch.softmax(scores.masked_fill(hidden[..., None], -math.inf), dim=1)
        pooled = torch.einsum("blh,blw->bhw", shares, features).flatten(1)
        width = self.network.label_dim
        return nn.functional.layer_norm(self.project(pooled), (width,)) / math.sqrt(width) * known

    @torch.no_grad()
    def _encoded(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        encoder = self._encoder[0]
        if isinstance(encoder, nn.Module) and tokens.device != self._device:
            encoder.to(tokens.device)
            self._device = tokens.device
        found = encoder(tokens)
        features, mask = found if isinstance(found, tuple) else (found, torch.ones_like(tokens))
        if features.shape != (*tokens.shape, self.width):
            raise ValueError(
                f"the encoder returns features of shape {tuple(features.shape)}; expected "
                f"{(*tokens.shape, self.width)} (network.width)"
            )
        return features.to(torch.float32), mask.to(torch.bool)
