"""Losses that train on some rows of a batch and use all of them as a finite set of data."""

import math

import torch
from torch import Tensor

from flowexp.couplings import Pairs

__all__ = ["finite_set_mean", "first_rows", "groups_of", "require_trained", "spread"]


Groups = tuple[Tensor, Tensor]
"""Integer groups of some states, (B,), and of a set, (K,)."""


def finite_set_mean(
    x: Tensor, level: Tensor, *, reference: Tensor, D: float, groups: Groups | None = None
) -> Tensor:
    """The exact posterior mean ``E[data | x] = sum_j w_j y_j`` where the data are a finite set.

    ``w_j ~ (1 + |x - y_j|^2/(D s^2))^(-(N + D)/2)``; D = inf gives the Gaussian kernel,
    ``w_j ~ exp(-|x - y_j|^2 / (2 s^2))``. Computed in float64 by log-sum-exp.

    Args:
        x: States divided by alpha, (B, ...), N numbers each.
        level: ``s = sigma/alpha``, (B,), > 0.
        reference: The set y, (K, ...).
        D: Degrees of freedom of the source.
        groups: Of the states and of the set: the mean runs over data of the same group, at least
            one per state.

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


def groups_of(pairs: Pairs, count: int) -> Groups | None:
    """The labels of the first ``count`` rows and of the whole batch, if it has any."""
    labels = pairs.conditions.get("labels")
    return None if labels is None else (labels[:count], labels)


def require_trained(trained: int | None) -> None:
    """Raise ``ValueError`` for a number of trained rows below 1."""
    if trained is not None and trained < 1:
        raise ValueError(f"trained is {trained}; expected at least 1, or null for the whole batch")


def first_rows(pairs: Pairs, count: int | None) -> Pairs:
    """The first ``count`` rows of a batch, at most all; all of them for None."""
    return Pairs(
        pairs.x[:count],
        pairs.e[:count],
        {name: None if c is None else c[:count] for name, c in pairs.conditions.items()},
        None if pairs.weight is None else pairs.weight[:count],
    )


def spread(loss: Tensor, *, batch: int) -> Tensor:
    """Losses of the first rows as (batch,) losses with the same mean: the others are zero."""
    if len(loss) == batch:
        return loss
    full = loss.new_zeros(batch)
    full[: len(loss)] = loss * (batch / len(loss))
    return full
