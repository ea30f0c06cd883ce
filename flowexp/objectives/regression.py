"""Regression of one prediction onto its value on the conditional path."""

from typing import Literal, get_args

import torch
from torch import Tensor

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.weightings import Weighting
from flowexp.paths import BridgeNoise, Path, PathPoint, bridge_point

__all__ = ["PredictionKind", "Regression", "point_of", "require_kind", "weighted", "BridgeMatching"]

PredictionKind = Literal["velocity", "data", "noise"]


class Regression(Objective):
    """``weight(t) premetric(prediction - truth)`` per sample, times the pair's own weight.

    Target data with EDM's weight and EDM's preconditioning is EDM's loss, on every path; target
    velocity with weight 1 is flow matching; target noise with weight 1 is DDPM's simple loss. What
    the network predicts is up to the parameterization: any target works with any prediction.

    States, predictions and errors are computed in float64 (the network runs in float32 as always):
    weights such as 1 / sigma^2 would otherwise multiply the rounding error of ``D(x_t) - x``.

    Args:
        target: The prediction that is compared: ``velocity``, ``data`` or ``noise``.
        weighting: Loss weight; each states the target it is meant for.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, eq. 2 and 8 (sum over pixels there, mean
    here); Lipman et al., 2022, arXiv 2210.02747; Ho et al., DDPM, 2020, arXiv 2006.11239, eq. 14.
    """

    def __init__(
        self, target: PredictionKind, *, weighting: Weighting, premetric: Premetric
    ) -> None:
        require_kind(target)
        self.target = target
        self.weighting = weighting
        self.premetric = premetric

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        point = point_of(pairs, model.path, t)
        return Loss(self.error(model, point, truth=point, pairs=pairs))

    def error(self, model: Model, point: PathPoint, *, truth: PathPoint, pairs: Pairs) -> Tensor:
        """The weighted error at the state of ``point`` against the target of ``truth``, (B,)."""
        prediction = model.predict(point.x_t, point.t, **pairs.conditions)
        difference = getattr(prediction, self.target) - getattr(truth, self.target)
        weight = self.weighting(model.path.schedule.coefficients(point.t))
        return weighted(self.premetric(difference), weight=weight, pairs=pairs)


def require_kind(target: str) -> None:
    """Raise ``ValueError`` for a target that is not a kind of prediction."""
    if target not in get_args(PredictionKind):
        raise ValueError(f"target is {target!r}; expected one of {get_args(PredictionKind)}")


def point_of(pairs: Pairs, path: Path, t: Tensor) -> PathPoint:
    """The conditional path of the pairs at times ``t``, in float64, on the device of the data."""
    x, e = pairs.x.to(torch.float64), pairs.e.to(torch.float64)
    return path.point(x, e, t.to(x.device))


def weighted(value: Tensor, *, weight: Tensor | float = 1.0, pairs: Pairs) -> Tensor:
    """``value weight``, times the pairs' weights if they have any; (B,), float32."""
    loss = value * weight
    if pairs.weight is not None:
        loss = loss * pairs.weight.to(loss)
    return loss.to(torch.float32)


class BridgeMatching(Objective):
    """``weight(t) premetric(velocity - v)`` with state and v on a bridge over the model's path.

    With constant noise this is I-CFM at sigma > 0; with Brownian noise and pairs from the entropic
    plan it is SB-CFM. Only the model's velocity is meaningful on a bridge.

    Source: Tong et al., Improving and generalizing flow-based generative models, 2023, arXiv
    2302.00482.
    """

    needs_unit_time = True

    def __init__(self, noise: BridgeNoise, *, weighting: Weighting, premetric: Premetric) -> None:
        self.noise = noise
        self.weighting = weighting
        self.premetric = premetric

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """One network call; the bridge's normal draws come from ``rng``."""
        x, e = pairs.x.to(torch.float64), pairs.e.to(torch.float64)
        eps = torch.randn(x.shape, dtype=x.dtype, generator=rng, device=rng.device).to(x.device)
        point = bridge_point(model.path, self.noise, x=x, e=e, t=t.to(x.device), eps=eps)
        velocity = model.velocity(point.x_t, point.t, **pairs.conditions)
        weight = self.weighting(model.path.schedule.coefficients(point.t))
        difference = velocity - point.velocity
        return Loss(weighted(self.premetric(difference), weight=weight, pairs=pairs))
