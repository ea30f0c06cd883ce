"""EasyControl: images that condition a frozen diffusion transformer, by low-rank branches."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.networks.base import label_dim_of, require_at_least
from flowexp.networks.conditions import Condition
from flowexp.networks.dit import Attention, DiT, sincos_positions
from flowexp.networks.foreign import FrozenNetwork, call_network
from flowexp.networks.padding import pad_to_multiple

__all__ = ["EasyControl"]

LAYERS = ("q", "k", "v", "proj")
_PREPARED_DIMS = 6


class EasyControl(FrozenNetwork):
    """A frozen DiT whose tokens also attend to the tokens of images that condition it.

    Each condition becomes channels of an image (:mod:`flowexp.networks.conditions`), its patches
    become tokens, and these pass the blocks of the DiT with low-rank changes of the weights, which
    alone are trained:

        k, v = block(condition tokens; W + B A, time of clean data, no label),   initially B = 0
        attention(noise tokens) = softmax(q [k_noise, k_1, k_2 ...]^T) [v_noise, v_1, v_2 ...]

    The weights for the noise tokens are the DiT's. Tokens of a condition attend to that condition
    only: neither to the noise, so that keys and values are the same at all times, nor to another
    condition, so that branches can be trained apart. :meth:`prepared` computes keys and values once
    for many calls. Patches of a condition with as many channels as the input are embedded by the
    DiT's layer, otherwise by a layer of their own.

    With no condition the network is the DiT, bit for bit; so are, to rounding, rows without one in
    a batch that has some. With a condition it differs from the DiT from the start, since the tokens
    attend to the condition whatever B is; the source has no gate.

    Args:
        network: The DiT.
        conditions: The conditions by name, each with a branch.
        rank: r, >= 1: A (r, in), B (out, r).
        resolution: Height and width to which conditions are resized, a multiple of the patch size;
            None = those of the network. A token in row i and column j has the place (i S, j S) of
            the network's grid, S = the network's resolution / this one.
        layers: Which of ``q``, ``k``, ``v`` and ``proj`` (the output projection) are changed.
        offsets: By name, for conditions that are no map of the picture, such as a subject: tokens
            have the places (i + offset, j), below the picture.
        clean_noise: c_noise of clean data: 0 on paths where it is proportional to time.
        label_dim: That of the network; other parts of a config refer to it.

    Attributes:
        condition_dropout: 1 for each condition, since the frozen network was trained without any.

    Raises:
        UsageError: There are no conditions, or the network is no DiT.
        ValueError: An argument is out of range.

    Source: Zhang et al., EasyControl, 2025, arXiv 2503.07027, and their code, which changes q, k, v
    in all blocks and proj where text has weights of its own (as ``proj(h) + B A proj(h)``), with
    rank 128, A ~ N(0, 1/r^2) and offset 64. Theirs adds the text to the time of the condition
    tokens; here these have no label, so that one computation serves guidance too.
    """

    network: DiT

    def __init__(
        self,
        *,
        network: nn.Module,
        conditions: Mapping[str, Condition] | None = None,
        rank: int = 16,
        resolution: int | None = None,
        layers: Sequence[str] = LAYERS,
        offsets: Mapping[str, float] | None = None,
        clean_noise: float = 0.0,
        label_dim: int = 0,
    ) -> None:
        if not isinstance(network, DiT) or any(
            not isinstance(block.attn, Attention) for block in network.blocks
        ):
            raise UsageError(
                f"EasyControl adds tokens to a DiT, but the network is {type(network).__name__}.",
                key="network.network",
                remedy="Use network@network.network=dit.",
            )
        if not conditions:
            raise UsageError(
                "EasyControl needs conditions, but the task gives none.",
                key="task",
                remedy="Use a task with images, such as task=edges, or set network.conditions.",
            )
        super().__init__(network)
        require_at_least(1, rank=rank)
        theirs = label_dim_of(network)
        if theirs != label_dim:
            raise ValueError(f"label_dim is {label_dim}, but the network's is {theirs}")
        unknown = [name for name in layers if name not in LAYERS]
        if unknown or not layers:
            raise ValueError(f"layers is {list(layers)}; allowed: some of {', '.join(LAYERS)}")
        places = dict(offsets or {})
        if strangers := [name for name in places if name not in conditions]:
            raise ValueError(f"offsets has {', '.join(strangers)}; allowed: names of conditions")
        if both := [name for name in conditions if name in network.conditions]:
            raise ValueError(f"conditions has {', '.join(both)}, which the network has; allowed: "
                             "other names")  # fmt: skip
        whole = network.padded_resolution
        size = whole if resolution is None else resolution
        if size < network.patch_size or size % network.patch_size:
            raise ValueError(f"resolution={size}; allowed: multiples of {network.patch_size}")
        self.label_dim = label_dim
        self.clean_noise = clean_noise
        self.condition_dropout = {**network.condition_dropout, **dict.fromkeys(conditions, 1.0)}
        self.branches = nn.ModuleDict(
            {
                name: _Branch(
                    condition,
                    network,
                    rank=rank,
                    layers=layers,
                    size=size,
                    spacing=1.0 if name in places else whole / size,
                    first_row=places.get(name, 0.0),
                )
                for name, condition in conditions.items()
            }
        )

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        **conditions: Tensor | None,
    ) -> Tensor:
        """F of the DiT, whose tokens attend to the conditions too.

        A condition is what its branch encodes, (B, ...), or what :meth:`prepared` made of it; a
        missing one, None, and rows of "none" are not attended to.

        Raises:
            ValueError: A condition does not fit.
        """
        given = [self._keys_values(name, conditions.pop(name, None), x) for name in self.branches]
        found = [one for one in given if one is not None]
        network = self.network.attending(_rules(found, x)) if found else self.network
        return call_network(network, x, c_noise, {"labels": labels, **conditions})

    def prepared(self, **conditions: Tensor | None) -> dict[str, Tensor | None]:
        """The conditions, with keys and values of all blocks in place of what they are made of.

        Each of those is (B, blocks, 2, heads, tokens, channels), zeros for "none", or None if no
        row has one; the other conditions are returned as they are.
        """
        ready = dict(conditions)
        for name in self.branches:
            value = conditions.get(name)
            if value is not None:
                size, place = self.network.img_resolution, self.network.pos_embed
                like = place.new_empty(len(value), 1, size, size)
                ready[name] = self._keys_values(name, value, like)
        return ready

    def load_base(self, state: dict[str, Tensor]) -> None:
        """Load a plain DiT, or one with some of these branches; the other branches are kept.

        Raises:
            UsageError: It belongs to another network, or has other branches.
        """
        prefix = "network."
        if not any(name.startswith(prefix) for name in state):
            super().load_base(state)
            return
        base = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        branches = {n: t for n, t in state.items() if not n.startswith(prefix)}
        own = self.state_dict()
        for name, tensor in branches.items():
            if name not in own or own[name].shape != tensor.shape:
                raise UsageError(f"the weights belong to another network; {name} does not fit.")
        super().load_base(base)
        self.load_state_dict({**self.state_dict(), **branches})

    def _keys_values(self, name: str, value: Tensor | None, x: Tensor) -> Tensor | None:
        """Keys and values of one condition for an input x; None if no row has it."""
        if value is None:
            return None
        branch = self.branches[name]
        assert isinstance(branch, _Branch)
        if value.ndim == _PREPARED_DIMS:
            branch.require_fit(name, value, x)
            return value if bool(_there(value).any()) else None
        image = branch.image(value, x, multiple=self.network.min_multiple)
        there = image.ne(0).flatten(1).any(dim=1)
        if not bool(there.any()):
            return None
        found = branch(image, self.network, self._modulation(image))
        rows = there.reshape(-1, *([1] * (found.ndim - 1)))
        return torch.where(rows, found, torch.zeros_like(found))

    def _modulation(self, image: Tensor) -> Tensor:
        """What the condition tokens are modulated by: clean data, no label; (B, hidden_size)."""
        network = self.network
        dtype = torch.promote_types(image.dtype, torch.float32)
        clean = torch.full((1,), self.clean_noise, dtype=dtype, device=image.device)
        vector: Tensor = network.t_embedder(clean)
        if network.y_embedder is not None:
            none = torch.zeros(1, network.label_dim, dtype=image.dtype, device=image.device)
            vector = vector + network.y_embedder(none)
        return vector.expand(len(image), -1)


class _LowRank(nn.Module):
    """``B A h``, initially zero: the change of a linear layer (out, in)."""

    def __init__(self, layer_in: int, layer_out: int, *, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(rank, layer_in) / rank)
        self.b = nn.Parameter(torch.zeros(layer_out, rank))

    def forward(self, h: Tensor) -> Tensor:
        return F.linear(F.linear(h, self.a), self.b)


class _Changes(nn.Module):
    """The attention of a block for the tokens of a condition: to themselves, by changed weights."""

    def __init__(self, hidden_size: int, *, rank: int, layers: Sequence[str]) -> None:
        super().__init__()
        changes = {name: _LowRank(hidden_size, hidden_size, rank=rank) for name in layers}
        self.changes = nn.ModuleDict(changes)

    def forward(self, kept: list[Tensor], attention: Attention, tokens: Tensor) -> Tensor:
        """New tokens (B, L, hidden_size); keys and values, (B, 2, heads, L, channels), are kept."""
        changed = torch.cat([self._change(name, tokens) for name in ("q", "k", "v")], dim=2)
        q, k, v = attention.heads(attention.qkv(tokens) + changed)
        kept.append(torch.stack([k, v], dim=1))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = attention.proj(h) + self._change("proj", h)
        return out

    def _change(self, name: str, h: Tensor) -> Tensor:
        """What is added to the output of a layer for its input h; 0 if it is not changed."""
        if name not in self.changes:
            return torch.zeros_like(h)
        added: Tensor = self.changes[name](h)
        return added


class _WithConditions:
    """Attention of noise tokens to themselves and to conditions, by the block's own weights.

    Args:
        keys: Keys of each condition, (B, heads, L, channels); likewise ``values``.
        mask: True at tokens that are attended to, (B, 1, 1, all tokens); None = everywhere.
    """

    def __init__(
        self, keys: Sequence[Tensor], values: Sequence[Tensor], mask: Tensor | None
    ) -> None:
        self.keys = keys
        self.values = values
        self.mask = mask

    def __call__(self, attention: Attention, tokens: Tensor) -> Tensor:
        q, k, v = attention.heads(attention.qkv(tokens))
        keys = torch.cat([k, *(one.to(k) for one in self.keys)], dim=2)
        values = torch.cat([attention.values(v), *(one.to(v) for one in self.values)], dim=2)
        mask = self.mask
        if mask is not None:
            own = mask.new_ones(*mask.shape[:3], tokens.shape[1])
            mask = torch.cat([own, mask], dim=3)
        h = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        out: Tensor = attention.proj(h.transpose(1, 2).flatten(2))
        return out


class _Branch(nn.Module):
    """The condition branch: an image (B, C, H, W) becomes keys and values for every block."""

    positions: Tensor

    def __init__(
        self,
        condition: Condition,
        network: DiT,
        *,
        rank: int,
        layers: Sequence[str],
        size: int,
        spacing: float,
        first_row: float,
    ) -> None:
        super().__init__()
        hidden, patch = network.x_embedder.proj.out_channels, network.patch_size
        self.condition = condition
        self.size = size
        self.patches = None
        if condition.channels != network.input_channels:
            self.patches = nn.Conv2d(condition.channels, hidden, patch, stride=patch)
        # The last block's output is not used, only its keys and values are.
        last = [name for name in layers if name in ("k", "v")]
        of_block = [layers] * (len(network.blocks) - 1) + [last]
        self.changes = nn.ModuleList(_Changes(hidden, rank=rank, layers=n) for n in of_block)
        side = size // patch
        positions = sincos_positions(hidden, side=side, spacing=spacing, first_row=first_row)
        self.register_buffer("positions", positions[None], persistent=False)

    def image(self, value: Tensor, x: Tensor, *, multiple: int) -> Tensor:
        """The condition's channels, (B, channels, size, size), for an input x."""
        channels: Tensor = self.condition(value, x)
        padded, _ = pad_to_multiple(channels, multiple=multiple)
        if padded.shape[-2:] == (self.size, self.size):
            return padded
        return F.interpolate(padded, size=(self.size, self.size), mode="bilinear", antialias=True)

    def forward(self, image: Tensor, network: DiT, modulation: Tensor) -> Tensor:
        """Keys and values, (B, blocks, 2, heads, tokens, channels)."""
        tokens = (
            network.x_embedder(image)
            if self.patches is None
            else self.patches(image).flatten(2).transpose(1, 2)
        )
        tokens = tokens + self.positions
        kept: list[Tensor] = []
        for block, changes in zip(network.blocks, self.changes, strict=True):
            tokens = block(tokens, modulation, partial(changes, kept))
        return torch.stack(kept, dim=1)

    def require_fit(self, name: str, prepared: Tensor, x: Tensor) -> None:
        """Refuse keys and values of another network, or of a batch that is not that of x."""
        expected = (len(x), len(self.changes), 2, self.positions.shape[1])
        found = (*prepared.shape[:3], prepared.shape[4])
        if found != expected:
            raise ValueError(
                f"{name} has keys and values for (rows, blocks, 2, tokens) {found}; allowed: "
                f"{expected}, see EasyControl.prepared"
            )


def _there(keys_values: Tensor) -> Tensor:
    """Which rows of keys and values are not "none", (B,): by the keys of the first block."""
    return keys_values[:, 0, 0].ne(0).flatten(1).any(dim=1)


def _rules(found: Sequence[Tensor], x: Tensor) -> list[_WithConditions]:
    """The attention of every block to these keys and values, for an input x."""
    there = [_there(one)[:, None].expand(len(x), one.shape[4]) for one in found]
    mask = torch.cat(there, dim=1)[:, None, None]
    everywhere = None if bool(mask.all()) else mask
    blocks = zip(*(one.unbind(1) for one in found), strict=True)
    return [
        _WithConditions([kv[:, 0] for kv in block], [kv[:, 1] for kv in block], everywhere)
        for block in blocks
    ]
