"""Fine-tuning a network by low-rank changes of its weights (LoRA)."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from flowexp.errors import UsageError
from flowexp.networks.base import label_dim_of
from flowexp.networks.foreign import call_network

__all__ = ["LowRank"]


class _LowRankSum(nn.Module):
    """``W + B A`` with W fixed; initially zero change.

    Args:
        weight: W, (out, in) or (out, in, height, width).
        rank: Number of columns of B and rows of A.
    """

    def __init__(self, weight: Tensor, *, rank: int) -> None:
        super().__init__()
        out, rest = weight.shape[0], weight[0].numel()
        self.a = nn.Parameter(torch.empty(rank, rest, device=weight.device))
        self.b = nn.Parameter(torch.zeros(out, rank, device=weight.device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5.0))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + (self.b @ self.a).reshape(weight.shape)


class LowRank(nn.Module):
    """A network of which only low-rank changes of the weight matrices are trained.

    Every layer with a weight of two dimensions (linear, embedding) or four (convolution) computes
    with ``W + B A``, A (rank, in), B (out, rank), initially B = 0; a convolution's weight counts as
    a matrix (out, in height width). The network's own parameters are frozen. Load the weights of a
    run with ``init``.

    Args:
        network: The network; attributes that this class lacks are the network's.
        rank: r, >= 1.
        label_dim: That of the network; other parts of a config refer to it.

    Raises:
        ValueError: rank < 1, or label_dim is not the network's.

    Source: Hu et al., LoRA, 2021, arXiv 2106.09685; rank 4 on linear and convolutional layers in
    Nguyen et al., BOSS, 2023, arXiv 2312.16414, appendix E.
    """

    def __init__(self, *, network: nn.Module, rank: int = 4, label_dim: int = 0) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank is {rank}; expected at least 1")
        theirs = label_dim_of(network)
        if theirs != label_dim:
            raise ValueError(f"label_dim is {label_dim}, but the network's is {theirs}")
        self.rank = rank
        self.label_dim = label_dim
        network.requires_grad_(False)
        self.network = network
        for layer in list(network.modules()):
            weight = getattr(layer, "weight", None)
            if isinstance(weight, nn.Parameter) and weight.ndim in (2, 4):
                change = _LowRankSum(weight, rank=rank)
                parametrize.register_parametrization(layer, "weight", change, unsafe=True)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        **conditions: Tensor | None,
    ) -> Tensor:
        """The changed network."""
        return call_network(self.network, x, c_noise, {"labels": labels, **conditions})

    def load_base(self, state: dict[str, Tensor]) -> None:
        """Load the weights of the plain network; the changes are kept.

        Args:
            state: State dict of the network without changes.

        Raises:
            UsageError: It belongs to another network.
        """
        own = self.network.state_dict()
        plain = {name: _plain(name) for name in own if not name.endswith(_CHANGES)}
        only_one = sorted(set(plain.values()) ^ set(state))
        if only_one:
            raise UsageError(
                f"the weights belong to another network; {only_one[0]} is only in one."
            )
        for name, base in plain.items():
            if own[name].shape != state[base].shape:
                raise UsageError(
                    f"the weights belong to another network; {base} is "
                    f"{tuple(state[base].shape)}, here it is {tuple(own[name].shape)}."
                )
        self.network.load_state_dict(own | {name: state[base] for name, base in plain.items()})

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)


_CHANGES = ("parametrizations.weight.0.a", "parametrizations.weight.0.b")
_ORIGINAL = "parametrizations.weight.original"


def _plain(name: str) -> str:
    """A parameter's name in the plain network."""
    return name.replace(_ORIGINAL, "weight")
