"""The base of couplings by a transport plan: groups of rows, and gathering of the pairs."""

from abc import abstractmethod

import torch
from torch import Tensor

from flowexp.couplings.base import Coupling, Pairs
from flowexp.parameterizations import Conditions

__all__ = ["PlanCoupling"]


class PlanCoupling(Coupling):
    """A coupling that picks pairs (i, j) of sources and data within the batch.

    Args:
        per_class: Pair only within the rows of one label. A plan over the whole batch couples e to
            the label; a conditional model would then need a source that depends on the label.
    """

    def __init__(self, *, per_class: bool = False) -> None:
        self.per_class = per_class

    @abstractmethod
    def match(self, e: Tensor, x: Tensor, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Indices (i, j), (B,) each: source row i goes with data row j."""

    def pair(
        self, x: Tensor, e: Tensor, conditions: Conditions, *, rng: torch.Generator, **_: object
    ) -> Pairs:
        """Rows of x and of all conditions gathered by the same index, rows of e by theirs.

        Raises:
            ValueError: ``per_class`` without labels, or x and e differ in batch size.
        """
        if x.shape[0] != e.shape[0]:
            raise ValueError(f"x has {x.shape[0]} rows and e has {e.shape[0]}; expected the same")
        source_rows, data_rows = [], []
        for rows in self._groups(x, conditions):
            i, j = self.match(e[rows], x[rows], rng=rng)
            source_rows.append(rows[i])
            data_rows.append(rows[j])
        source, data = torch.cat(source_rows), torch.cat(data_rows)
        moved = {k: None if c is None else c[data.to(c.device)] for k, c in conditions.items()}
        return Pairs(x=x[data], e=e[source], conditions=moved)

    def _groups(self, x: Tensor, conditions: Conditions) -> list[Tensor]:
        if not self.per_class:
            return [torch.arange(x.shape[0], device=x.device)]
        labels = conditions.get("labels")
        if labels is None:
            raise ValueError("per_class is true, but the batch has no labels")
        return [torch.nonzero(labels == k).flatten().to(x.device) for k in torch.unique(labels)]
