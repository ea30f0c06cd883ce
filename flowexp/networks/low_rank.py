"""Fine-tuning a network by low-rank changes of its weights (LoRA)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from flowexp.networks.base import label_dim_of
from flowexp.networks.foreign import FrozenNetwork

__all__ = ["LowRank"]

_CHANGES = ("parametrizations.weight.0.a", "parametrizations.weight.0.b")
_ORIGINAL = "parametrizations.weight.original"


class _LowRankSum(nn.Module):
    """``W + B A`` for a fixed W, (out, in) or (out, in, height, width); initially no change."""

    def __init__(self, weight: Tensor, *, rank: int) -> None:
        super().__init__()
        out, rest = weight.shape[0], weight[0].numel()
        self.a = nn.Parameter(torch.empty(rank, rest, device=weight.device))
        self.b = nn.Parameter(torch.zeros(out, rank, device=weight.device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5.0))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).reshape(weight.shape)


class LowRank(FrozenNetwork):
    """A network of which only low-rank changes of the weight matrices are trained.

    Every layer with a weight of two dimensions (linear, embedding) or four (convolution) computes
    with ``W + B A``, A (rank, in), B (out, rank), initially B = 0; a convolution's weight counts as
    a matrix (out, in height width). The network's own parameters are frozen. Load the weights of a
    run with ``init``.

    Args:
        rank: r, >= 1.
        label_dim: That of the network; other parts of a config refer to it.

    Raises:
        ValueError: rank < 1, or label_dim is not the network's.

    Source: Hu et al., LoRA, 2021, arXiv 2106.09685; rank 4 on linear and convolutional layers in
    Nguyen et al., BOSS, 2023, arXiv 2312.16414, appendix E.
    """

    def __init__(self, *, network: nn.Module, rank: int = 4, label_dim: int = 0) -> None:
        super().__init__(network)
        if rank < 1:
            raise ValueError(f"rank is {rank}; expected at least 1")
        theirs = label_dim_of(network)
        if theirs != label_dim:
            raise ValueError(f"label_dim is {label_dim}, but the network's is {theirs}")
        self.rank = rank
        self.label_dim = label_dim
        for layer in list(network.modules()):
            weight = getattr(layer, "weight", None)
            if isinstance(weight, nn.Parameter) and weight.ndim in (2, 4):
                change = _LowRankSum(weight, rank=rank)
                parametrize.register_parametrization(layer, "weight", change, unsafe=True)

    def plain_names(self) -> dict[str, str]:
        own = self.network.state_dict()
        return {n: n.replace(_ORIGINAL, "weight") for n in own if not n.endswith(_CHANGES)}
