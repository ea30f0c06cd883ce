"""Regression onto the mean of the data behind a state, estimated from a batch."""

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.base import Loss
from flowexp.objectives.finite_set import (
    finite_set_mean,
    first_rows,
    groups_of,
    require_trained,
    spread,
)
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.regression import PredictionKind, Regression, point_of
from flowexp.objectives.weightings import Weighting
from flowexp.paths import PathPoint

__all__ = ["StableTarget"]


class StableTarget(Regression):
    """Regression where the target of a state is the mean over the batch, not its own x.

    With ``m = E[x | x_t]`` of the batch as a finite data set (Student-t or Gaussian kernel, by the
    path's source) the targets are ``m``, ``e + alpha (x - m)/sigma`` and their velocity. The
    variance of the target falls with the batch size, at the price of a bias of order one over it;
    the batch is a sample of the data only if the coupling is independent. With labels, the mean
    runs over the data of the same label. The mean is over one process's micro-batch.

    Args:
        target: See :class:`Regression`; so are weighting and premetric.
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
