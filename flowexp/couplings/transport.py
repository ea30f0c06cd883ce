"""Couplings by a transport plan: costs, exact and entropic plans, and draws of pairs from a plan.

Rows of every matrix are sources e_i, columns are data x_j; both marginals are uniform.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from flowexp.couplings.base import Coupling, Pairs
from flowexp.parameterizations import Conditions

__all__ = [
    "PlanCoupling",
    "optimal_permutation",
    "pairs_from_plan",
    "sinkhorn_plan",
    "squared_cost",
]

_CHECK_EVERY = 10


def squared_cost(e: Tensor, x: Tensor) -> Tensor:
    """``C_ij = |e_i - x_j|^2`` on flattened samples, (B_e, B_x), float64."""
    rows = e.detach().flatten(1).to(torch.float64)
    columns = x.detach().flatten(1).to(torch.float64)
    squares = rows.square().sum(1)[:, None] + columns.square().sum(1)[None, :]
    return (squares - 2.0 * rows @ columns.T).clamp(min=0.0)


def optimal_permutation(cost: Tensor) -> Tensor:
    """The permutation p that minimises ``sum_i cost[i, p_i]``, (B,), int64, on the cost's device.

    For equal batch sizes and uniform marginals an optimal plan is a permutation.

    Source: Crouse, 2016 (scipy.optimize.linear_sum_assignment), O(B^3) on the CPU.
    """
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(columns, dtype=torch.int64, device=cost.device)


def sinkhorn_plan(
    cost: Tensor, *, reg: float, iterations: int = 1000, tolerance: float = 1e-9
) -> Tensor:
    """The plan that minimises ``<P, cost> - reg H(P)`` with uniform marginals, (B_e, B_x), float64.

    ``reg``, > 0, is in the unit of the float64 cost. Alternating projections on the logarithms, so
    that ``exp(-cost / reg)`` may underflow. Stops when the column sums' error (Euclidean norm) is
    below ``tolerance``, or after ``iterations`` double projections.

    Source: Cuturi, Sinkhorn Distances, 2013, arXiv 1306.0895.
    """
    if not reg > 0.0:
        raise ValueError(f"reg is {reg}; expected a positive number")
    n, m = cost.shape
    log_kernel = -cost / reg
    log_a, log_b = -math.log(n), -math.log(m)
    f = cost.new_zeros(n)
    g = cost.new_zeros(m)
    for i in range(iterations):
        g = log_b - torch.logsumexp(log_kernel + f[:, None], dim=0)
        f = log_a - torch.logsumexp(log_kernel + g[None, :], dim=1)
        if i % _CHECK_EVERY == 0:
            columns = torch.exp(log_kernel + f[:, None] + g[None, :]).sum(0)
            if torch.linalg.vector_norm(columns - 1.0 / m) < tolerance:
                break
    return torch.exp(log_kernel + f[:, None] + g[None, :])


def pairs_from_plan(plan: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs (i, j), (n,) int64 each, drawn with replacement by inversion of the cumulated plan.

    The plan has any positive sum; ``u`` are uniform draws in (0, 1), (n,), float64.
    """
    cumulative = plan.to(torch.float64).flatten().cumsum(0)
    index = torch.searchsorted(cumulative, u.to(cumulative.device) * cumulative[-1], right=True)
    index = index.clamp(max=plan.numel() - 1)
    return index // plan.shape[1], index % plan.shape[1]


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
