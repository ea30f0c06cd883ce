"""Optimal transport between two batches: cost, exact permutation, entropic plan, draws from a plan.

Rows of every matrix are sources e_i, columns are data x_j; both marginals are uniform.
"""

import math

import torch
from torch import Tensor

__all__ = ["optimal_permutation", "pairs_from_plan", "sinkhorn_plan", "squared_cost"]

_CHECK_EVERY = 10


def squared_cost(e: Tensor, x: Tensor) -> Tensor:
    """``C_ij = |e_i - x_j|^2`` on flattened samples, (B_e, B_x), float64.

    Args:
        e: Source, (B_e, ...).
        x: Data, (B_x, ...).
    """
    rows = e.detach().flatten(1).to(torch.float64)
    columns = x.detach().flatten(1).to(torch.float64)
    squares = rows.square().sum(1)[:, None] + columns.square().sum(1)[None, :]
    return (squares - 2.0 * rows @ columns.T).clamp(min=0.0)


def optimal_permutation(cost: Tensor) -> Tensor:
    """The permutation p that minimises ``sum_i cost[i, p_i]``, (B,), int64, on the cost's device.

    For equal batch sizes and uniform marginals an optimal plan is a permutation.

    Args:
        cost: (B, B).

    Source: Crouse, 2016 (scipy.optimize.linear_sum_assignment), O(B^3) on the CPU.
    """
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(columns, dtype=torch.int64, device=cost.device)


def sinkhorn_plan(
    cost: Tensor, *, reg: float, iterations: int = 1000, tolerance: float = 1e-9
) -> Tensor:
    """The plan that minimises ``<P, cost> - reg H(P)`` with uniform marginals, (B_e, B_x), float64.

    Alternating projections on the logarithms, so that ``exp(-cost / reg)`` may underflow. Stops
    when the column sums' error (Euclidean norm) is below ``tolerance``, or after ``iterations``.

    Args:
        cost: (B_e, B_x), float64.
        reg: Entropic regularization in the cost's unit, > 0.
        iterations: Largest number of double projections.
        tolerance: Error of the column sums at which to stop.

    Raises:
        ValueError: reg is not positive.

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
    """Pairs (i, j) drawn from a plan with replacement, by inversion of its distribution function.

    Args:
        plan: (B_e, B_x), non-negative, of any positive sum.
        u: Uniform draws in (0, 1), (n,), float64.

    Returns:
        Row indices and column indices, (n,) each, int64.
    """
    cumulative = plan.to(torch.float64).flatten().cumsum(0)
    index = torch.searchsorted(cumulative, u.to(cumulative.device) * cumulative[-1], right=True)
    index = index.clamp(max=plan.numel() - 1)
    return index // plan.shape[1], index % plan.shape[1]
