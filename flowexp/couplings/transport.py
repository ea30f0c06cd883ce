"""Couplings by a transport plan: costs, exact and entropic plans, and draws of pairs from a plan.

Rows of every matrix are sources e_i, columns are data x_j; both marginals are uniform.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from flowexp.couplings.assignment import AssignmentSolver, ShortestPaths
from flowexp.couplings.base import BatchCoupling, Pairs
from flowexp.parameterizations import Conditions
from flowexp.requirements import Parts, Unmet, all_of
from flowexp.seeding import open_uniform

__all__ = [
    "PlanCoupling",
    "pairs_from_plan",
    "sinkhorn_plan",
    "squared_cost",
    "within_classes",
    "MinibatchOT",
    "EntropicOT",
]

_CHECK_EVERY = 10


def squared_cost(e: Tensor, x: Tensor) -> Tensor:
    """``C_ij = |e_i - x_j|^2`` on flattened samples, (B_e, B_x), float64."""
    rows = e.detach().flatten(1).to(torch.float64)
    columns = x.detach().flatten(1).to(torch.float64)
    squares = rows.square().sum(1)[:, None] + columns.square().sum(1)[None, :]
    return (squares - 2.0 * rows @ columns.T).clamp(min=0.0)


def sinkhorn_plan(
    cost: Tensor,
    *,
    reg: float,
    iterations: int = 1000,
    tolerance: float = 1e-9,
    marginals: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The plan that minimises ``<P, cost> - reg H(P)`` with given marginals, (B_e, B_x), float64.

    ``marginals`` are those of the rows and columns, positive with sum 1; None = both uniform.
    ``reg``, > 0, is in the unit of the float64 cost. Alternating projections on the logarithms, so
    that ``exp(-cost / reg)`` may underflow. Stops when the column sums' error (Euclidean norm) is
    below ``tolerance``, or after ``iterations`` double projections.

    Source: Cuturi, Sinkhorn Distances, 2013, arXiv 1306.0895.
    """
    if not reg > 0.0:
        raise ValueError(f"reg is {reg}; expected a positive number")
    n, m = cost.shape
    log_kernel = -cost / reg
    uniform = cost.new_full((n,), 1.0 / n), cost.new_full((m,), 1.0 / m)
    rows, columns = uniform if marginals is None else marginals
    log_a, log_b = rows.log(), columns.log()
    f = cost.new_zeros(n)
    g = cost.new_zeros(m)
    for i in range(iterations):
        g = log_b - torch.logsumexp(log_kernel + f[:, None], dim=0)
        f = log_a - torch.logsumexp(log_kernel + g[None, :], dim=1)
        if i % _CHECK_EVERY == 0:
            found = torch.exp(log_kernel + f[:, None] + g[None, :]).sum(0)
            if torch.linalg.vector_norm(found - columns) < tolerance:
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


def within_classes(parts: Parts, *, name: str, per_class: bool) -> Iterator[Unmet]:
    """Labels for pairs within classes; a warning if a class-conditional network is given others."""
    conditional = parts.network.label_dim > 0
    if per_class and not conditional:
        problem = f"{name} pairs within classes, but the network takes no labels."
        yield Unmet(".per_class", problem, "Set coupling.per_class=false.")
    elif conditional and not per_class:
        problem = (
            f"{name} over all classes makes the noise of a training pair depend on its class, "
            f"but samples of a class start from any noise."
        )
        yield Unmet(".per_class", problem, "Set coupling.per_class=true.", False)


class PlanCoupling(BatchCoupling):
    """A coupling that picks pairs (i, j) of sources and data within the batch.

    Args:
        per_class: Pair only within the rows of one label. A plan over the whole batch couples e to
            the label; a conditional model would then need a source that depends on the label.
        across_devices: See :class:`BatchCoupling`.
    """

    keeps_rows = False

    def __init__(self, *, per_class: bool = False, across_devices: bool = False) -> None:
        super().__init__(across_devices=across_devices)
        self.per_class = per_class

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Labels for pairs within a class; else a warning if the network is given labels."""
        yield from all_of(super().needs(parts), self._labels(parts))

    def _labels(self, parts: Parts) -> Iterator[Unmet]:
        yield from within_classes(parts, name=type(self).__name__, per_class=self.per_class)

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


class MinibatchOT(PlanCoupling):
    """Pairs that minimise ``sum |e_i - x_j|^2`` over the batch.

    Args:
        replacement: Draw the pairs from the plan with replacement, as the authors' code does: only
            about 1 - 1/e = 63 % of a batch is then distinct. By default the permutation itself.
        solver: Solver of the assignment problem; None = :class:`ShortestPaths`.

    Source: Tong et al., Improving and generalizing flow-based generative models, 2023, arXiv
    2302.00482 (OT-CFM); Pooladian et al., Multisample Flow Matching, 2023, arXiv 2304.14772.
    """

    later_options: ClassVar[Mapping[str, object]] = {
        **PlanCoupling.later_options,
        "solver": {"_target_": "flowexp.couplings.ShortestPaths"},
    }

    def __init__(
        self,
        *,
        replacement: bool = False,
        per_class: bool = False,
        across_devices: bool = False,
        solver: AssignmentSolver | None = None,
    ) -> None:
        super().__init__(per_class=per_class, across_devices=across_devices)
        self.replacement = replacement
        self.solver = solver or ShortestPaths()

    def match(self, e: Tensor, x: Tensor, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        permutation = self.solver.permutation(squared_cost(e, x))
        rows = torch.arange(permutation.shape[0], device=permutation.device)
        if not self.replacement:
            return rows, permutation
        plan = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
        plan[rows, permutation] = 1.0
        return pairs_from_plan(plan, open_uniform((len(rows),), rng=rng))


class EntropicOT(PlanCoupling):
    """Pairs drawn from the entropic plan of ``|e_i - x_j|^2`` over the batch.

    ``reg = 2 s^2`` is the Schroedinger bridge of a Brownian motion with diffusion s; reg -> 0 is
    :class:`MinibatchOT` with replacement, reg -> inf the independent coupling. The cost grows with
    the number of pixels, and reg must grow with it.

    Args:
        reg: Regularization in the cost's unit, > 0.
        iterations: Largest number of Sinkhorn iterations, >= 1.
        tolerance: Error of the marginal at which they stop, >= 0.

    Source: Tong et al., Improving and generalizing flow-based generative models, 2023, arXiv
    2302.00482 (SB-CFM). The authors' class uses the exact plan by default; this one always uses
    the entropic plan that their paper states.
    """

    def __init__(
        self,
        *,
        reg: float = 0.5,
        iterations: int = 1000,
        tolerance: float = 1e-9,
        per_class: bool = False,
        across_devices: bool = False,
    ) -> None:
        super().__init__(per_class=per_class, across_devices=across_devices)
        if not reg > 0.0:
            raise ValueError(f"reg is {reg}; expected a positive number")
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}; expected at least 1")
        if not tolerance >= 0.0:
            raise ValueError(f"tolerance is {tolerance}; expected a number >= 0")
        self.reg = float(reg)
        self.iterations = iterations
        self.tolerance = float(tolerance)

    def match(self, e: Tensor, x: Tensor, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        plan = sinkhorn_plan(
            squared_cost(e, x), reg=self.reg, iterations=self.iterations, tolerance=self.tolerance
        )
        return pairs_from_plan(plan, open_uniform((e.shape[0],), rng=rng))
