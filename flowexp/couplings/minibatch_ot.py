"""Exact optimal transport within the batch (OT-CFM)."""

import torch
from torch import Tensor

from flowexp.couplings.transport import (
    PlanCoupling,
    optimal_permutation,
    pairs_from_plan,
    squared_cost,
)
from flowexp.seeding import open_uniform

__all__ = ["MinibatchOT"]


class MinibatchOT(PlanCoupling):
    """Pairs that minimise ``sum |e_i - x_j|^2`` over the batch.

    The plan is that of one device's batch: more devices at the same total batch mean smaller plans.

    Args:
        replacement: Draw the pairs from the plan with replacement, as the authors' code does: only
            about 1 - 1/e = 63 % of a batch is then distinct. By default the permutation itself.

    Source: Tong et al., Improving and generalizing flow-based generative models, 2023, arXiv
    2302.00482 (OT-CFM); Pooladian et al., Multisample Flow Matching, 2023, arXiv 2304.14772.
    """

    def __init__(self, *, replacement: bool = False, per_class: bool = False) -> None:
        super().__init__(per_class=per_class)
        self.replacement = replacement

    def match(self, e: Tensor, x: Tensor, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        permutation = optimal_permutation(squared_cost(e, x))
        rows = torch.arange(permutation.shape[0], device=permutation.device)
        if not self.replacement:
            return rows, permutation
        plan = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
        plan[rows, permutation] = 1.0
        return pairs_from_plan(plan, open_uniform((len(rows),), rng=rng))
