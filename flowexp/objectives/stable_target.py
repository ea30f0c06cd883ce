"""Regression onto the mean of the data behind a state, estimated from a batch as a finite set."""

import math

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.base import Loss
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.regression import PredictionKind, Regression, point_of
from flowexp.objectives.weightings import Weighting
from flowexp.paths import PathPoint

__all__ = [
    "StableTarget",
    "finite_set_mean",
    "first_rows",
    "groups_of",
    "require_trained",
    "spread",
]

Groups = tuple[Tensor, Tensor]
"""Integer groups of some states, (B,), and of a set, (K,)."""


class StableTarget(Regression):
    """Regression where the target of a state is the mean over the batch, not its own x.

    With ``m = E[x | x_t]`` of the batch as a finite data set (Student-t or Gaussian kernel, by the
    path's source) the targets are ``m``, ``e + alpha (x - m)/sigma`` and their velocity. The
    variance of the target falls with the batch size, at the price of a bias of order one over it;
    the batch is a sample of the data only if the coupling is independent. With labels, the mean
    runs over the data of the same label. The mean is over one process's micro-batch.

    Args:
        trained: Number of rows the network is trained on, >= 1; the others enter the mean only.
            None = all.

    Source: Xu, Tong & Jaakkola, Stable Target Field, 2023, arXiv 2302.00670; Newbeeer/pfgmpp,
    training/loss.py (``--stf``, ``--rbatch 4096``), which has no labels in the kernel.
    """

    # The kernel compares x_t / alpha with the data.
    needs_signal = True

    def __init__(
        self,
        target: PredictionKind,
        *,
        weighting: Weighting,
        premetric: Premetric,
        trained: int | None = None,
    ) -> None:
        super().__init__(target, weighting=weighting, premetric=premetric)
        require_trained(trained)
        self.trained = trained

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        part = first_rows(pairs, self.trained)
        point = point_of(part, model.path, t[: self.trained])
        truth = self._truth(model, point, pairs)
        return Loss(spread(self.error(model, point, truth=truth, pairs=part), batch=len(pairs.x)))

    def _truth(self, model: Model, point: PathPoint, pairs: Pairs) -> PathPoint:
        """The stable targets; the noise in a form that does not cancel at small sigma."""
        c = model.path.schedule.coefficients(point.t)
        mean = finite_set_mean(
            point.x_t / expand_as(c.alpha, point.x_t),
            c.sigma / c.alpha,
            reference=pairs.x,
            D=model.path.D,
            groups=groups_of(pairs, len(point.x)),
        )
        noise = point.e + expand_as(c.alpha / c.sigma, mean) * (point.x - mean)
        return model.path.point(mean, noise, point.t)


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
    return pairs.rows(slice(count))


def spread(loss: Tensor, *, batch: int) -> Tensor:
    """Losses of the first rows as (batch,) losses with the same mean: the others are zero."""
    if len(loss) == batch:
        return loss
    full = loss.new_zeros(batch)
    full[: len(loss)] = loss * (batch / len(loss))
    return full
