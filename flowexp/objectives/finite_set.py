"""The exact posterior mean of the data, given a state, when the data are a finite set."""

import math

import torch
from torch import Tensor

__all__ = ["finite_set_mean"]


def finite_set_mean(
    x: Tensor,
    level: Tensor,
    *,
    reference: Tensor,
    D: float,
    groups: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """``E[data | x] = sum_j w_j y_j`` with ``w_j ~ (1 + |x - y_j|^2/(D s^2))^(-(N + D)/2)``.

    D = inf gives the Gaussian kernel, ``w_j ~ exp(-|x - y_j|^2 / (2 s^2))``. Computed in float64 by
    log-sum-exp.

    Args:
        x: States divided by alpha, (B, ...), N numbers each.
        level: ``s = sigma/alpha``, (B,), > 0.
        reference: The set y, (K, ...).
        D: Degrees of freedom of the source.
        groups: Integer groups of the rows of x, (B,), and of the set, (K,): the mean runs over data
            of the same group, at least one per state.

    Source: Xu et al., PFGM++, 2023, arXiv 2302.04265, eq. 3; the authors' code adds 1e-7 to the
    normalising sum; this does not.
    """
    states, data = x.flatten(1).to(torch.float64), reference.flatten(1).to(torch.float64)
    distance = torch.cdist(states, data).square()
    s2 = level.to(torch.float64).square()[:, None]
    if math.isinf(D):
        log_weight = -0.5 * distance / s2
    else:
        log_weight = -0.5 * (states.shape[1] + D) * torch.log1p(distance / (D * s2))
    if groups is not None:
        other = groups[0][:, None] != groups[1][None, :]
        log_weight = log_weight.masked_fill(other, -torch.inf)
    return (torch.softmax(log_weight, dim=1) @ data).reshape(x.shape)
