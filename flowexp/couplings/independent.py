"""The independent coupling."""

from torch import Tensor

from flowexp.couplings.base import Coupling, Pairs
from flowexp.parameterizations import Conditions

__all__ = ["Independent"]


class Independent(Coupling):
    """Each x with an independent e: the batch unchanged."""

    def pair(self, x: Tensor, e: Tensor, conditions: Conditions, **_: object) -> Pairs:
        return Pairs(x=x, e=e, conditions=conditions)
