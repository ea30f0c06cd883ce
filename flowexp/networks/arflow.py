"""ARFlow's network: a DiT whose attention also reads the earlier, noisier images of a sequence.

In training mode every ``sequence`` consecutive rows are one example, from the noisiest image to the
cleanest. In evaluation mode every row is an image of its own, unless the network has a memory of
its earlier calls, see :meth:`ARFlow.remembering`.

Source: Hui et al., ARFlow, 2025, arXiv 2501.16085, and the authors' code (TheFllood/ARFlow), of
which the gates of the recurrence are: a token is gated by all tokens before it in its image, the
state by their mean.
"""

import copy
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Self, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.networks.attention_features import AttentionValues
from flowexp.networks.base import ImageArguments, require_at_least
from flowexp.networks.dit import NORM_EPS, DiT
from flowexp.networks.memory import Memory

__all__ = ["ARFlow", "HybridAttention", "Past", "hybrid_attention"]

GATE_NORMALISER = 16.0


class ARFlow(DiT):
    """The diffusion transformer with hybrid attention: full within an image, linear across images.

    With ``sequence = 1``, or without a memory in evaluation mode, it is a DiT with normalised,
    gated attention. A last sequence of fewer rows is a shorter one. Arguments not listed here are
    those of :class:`~flowexp.networks.dit.DiT`.

    Args:
        sequence: Images per example in training, >= 1.

    Raises:
        ValueError: An argument is out of range.
    """

    remembers = True

    def __init__(
        self,
        *,
        sequence: int = 5,
        patch_size: int = 2,
        hidden_size: int = 256,
        depth: int = 8,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        **image: Unpack[ImageArguments],
    ) -> None:
        require_at_least(1, sequence=sequence)
        super().__init__(
            patch_size=patch_size,
            hidden_size=hidden_size,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            **image,
        )
        self.sequence = sequence
        self.memory: Memory | None = None

    def attention(self, hidden_size: int, *, num_heads: int) -> nn.Module:
        return HybridAttention(hidden_size, num_heads=num_heads)

    def remembering(self, memory: Memory) -> Self:
        """This network, each row of a call continuing the sequence of that row in earlier calls.

        The weights are shared. The state of a layer, (B, heads, d, d), sums over the images that
        extended the memory.
        """
        remembering = copy.copy(self)
        remembering.memory = memory
        return remembering

    def through_blocks(self, tokens: Tensor, condition: Tensor) -> Tensor:
        memory = self.memory
        sequence = self.sequence if self.training and memory is None else 1
        states: list[Tensor | None] = []
        for number, block in enumerate(self.blocks):
            past = Past(sequence, None if memory is None else memory.read(number))
            tokens = block(tokens, condition, condition[:, None], past)
            states.append(past.state)
        if memory is not None:
            memory.after_call(states)
        return tokens


@dataclass(eq=False)
class Past:
    """What came before the images of a call, for one layer.

    Attributes:
        sequence: Number of consecutive images that follow each other.
        state: State before the first of them, None = nothing; the layer leaves there the state
            after the last.
    """

    sequence: int
    state: Tensor | None


class HybridAttention(nn.Module):
    """Multi-head attention over the tokens of an image and, linearly, over the images before it.

    ``q, k, v = rms(h W)`` over the full width, ``a = logsigmoid((h + c) W_a) / 16`` per head and
    token, ``silu(h W_g) rms(hybrid_attention(q, k / sqrt(d), v, a)) W_out`` with the norm over each
    head; no biases, no weights in the norms. From q to the last norm in float32 or higher.
    """

    def __init__(self, hidden_size: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.k_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.v_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.g_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.gt_proj = nn.Linear(hidden_size, num_heads, bias=False)
        self.values = AttentionValues()
        self.out_proj = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, tokens: Tensor, condition: Tensor, past: Past) -> Tensor:
        """The layer's output, shaped as the tokens h (B, T, hidden_size).

        Args:
            tokens: Those of B images.
            condition: c, added to the tokens: (B, 1, hidden_size), or one per token.
            past: How the images follow each other; its state is changed.
        """
        log_gate = F.logsigmoid(_precise(self.gt_proj(tokens + condition)))
        q, k, v = (
            self._heads(_rms(_precise(project(tokens))))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        kind = tokens.device.type
        # there is no autocast on meta, where networks are measured
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
            found, past.state = hybrid_attention(
                q,
                k,
                self.values(v),
                log_gate.transpose(1, 2) / GATE_NORMALISER,
                sequence=past.sequence,
                state=past.state,
            )
        merged = _rms(found).transpose(1, 2).flatten(2)
        out: Tensor = self.out_proj(merged * F.silu(self.g_proj(tokens)))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, heads d) as (B, heads, T, d)."""
        return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


def hybrid_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_gate: Tensor,
    *,
    sequence: int = 1,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention within images plus gated linear attention over earlier ones.

    With keys k / sqrt(d), a the log gates, and S the state before an image::

        o_j = softmax(q_j k^T) v + exp(a_1 + ... + a_j) q_j S,   S <- exp(mean_j a_j) S + k^T v

    Every ``sequence`` consecutive images follow each other; the last ones may be fewer.

    Args:
        q: Queries, (B, heads, T, d).
        k: Keys, shaped likewise.
        v: Values, shaped likewise.
        log_gate: a <= 0, (B, heads, T).
        sequence: Number of images that follow each other, >= 1.
        state: S before the first image of each sequence, (sequences, heads, d, d); None = 0.

    Returns:
        Outputs, (B, heads, T, d), and the states after those sequences that are complete.

    Source: Hui et al., 2025, arXiv 2501.16085; the published code (its kernels are this recurrence,
    with T tokens per chunk).
    """
    k = k * k.shape[-1] ** -0.5
    within = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    own = k.transpose(2, 3) @ v
    received = q * log_gate.cumsum(2).exp()[..., None]
    kept = log_gate.mean(2).exp()[..., None, None]
    rows = [torch.arange(len(q), device=q.device)[i::sequence] for i in range(sequence)]
    across = []
    for i in range(sequence):
        if state is None:
            across.append(torch.zeros_like(within[i::sequence]))
            state = own[i::sequence]
        else:
            state = state[: len(rows[i])]
            across.append(received[i::sequence] @ state)
            state = kept[i::sequence] * state + own[i::sequence]
    assert state is not None
    place = torch.cat(rows).argsort()
    return within + torch.cat(across)[place], state


def _precise(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _rms(x: Tensor) -> Tensor:
    """The tensor over its root mean square along the last dimension."""
    return F.rms_norm(x, x.shape[-1:], eps=NORM_EPS)
