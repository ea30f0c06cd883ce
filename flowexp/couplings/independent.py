"""The independent coupling."""

import torch
from torch import Tensor

from flowexp.couplings.base import Coupling, Pairs

__all__ = ["Independent"]


class Independent(Coupling):
    """Each x with an e of its own: the batch as it comes."""

    def pair(
        self,
        x: Tensor,
        e: Tensor,
        conditions: dict[str, Tensor | None],
        *,
        rng: torch.Generator,
        partner: Tensor | None = None,
        images_seen: int = 0,
    ) -> Pairs:
        return Pairs(x=x, e=e, conditions=conditions)
