"""Regression of one prediction onto its value on the conditional path."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.weightings import Weighting
from flowexp.paths import BridgeNoise, Path, PathPoint, bridge_point
from flowexp.requirements import Parts, Unmet, all_of

__all__ = [
    "PredictionKind",
    "Regression",
    "point_of",
    "require_kind",
    "weighted",
    "BridgeMatching",
    "FlowAndScoreMatching",
]

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
        counted = self.premetric(self.counted(difference, pairs))
        return weighted(counted, weight=weight, pairs=pairs)

    def counted(self, difference: Tensor, pairs: Pairs) -> Tensor:
        """The part of a deviation (B, ...) that counts: all of it, unless overridden."""
        return difference


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
        point, _ = self.point(model.path, pairs, t, rng=rng)
        velocity = model.velocity(point.x_t, point.t, **pairs.conditions)
        weight = self.weighting(model.path.schedule.coefficients(point.t))
        difference = velocity - point.velocity
        return Loss(weighted(self.premetric(difference), weight=weight, pairs=pairs))

    def point(
        self, path: Path, pairs: Pairs, t: Tensor, *, rng: torch.Generator
    ) -> tuple[PathPoint, Tensor]:
        """The points of the bridges, float64, and the normal draws eps in them, (B, ...)."""
        x, e = pairs.x.to(torch.float64), pairs.e.to(torch.float64)
        eps = torch.randn(x.shape, dtype=x.dtype, generator=rng, device=rng.device).to(x.device)
        return bridge_point(path, self.noise, x=x, e=e, t=t.to(x.device), eps=eps), eps


class FlowAndScoreMatching(BridgeMatching):
    """``weight(t) premetric(v - v_t) + score_weight premetric(lambda(t) F_2 + eps)``.

    eps is the bridge's own noise, ``F_2 = (s^2/2) score`` the second head
    (:class:`~flowexp.parameterizations.FlowAndScore`) and ``lambda = 2 gamma / s^2``
    (:meth:`~flowexp.paths.BridgeNoise.score_weight`), so that ``lambda F_2 = gamma score`` is
    regressed onto ``-eps``: all times count alike, though the score grows at both ends. With pairs
    from the entropic plan of ``reg = 2 s^2`` this learns the Schroedinger bridge.

    Args:
        noise: The bridge's noise, of the scale s of the parameterization.
        weighting: Loss weight of the velocity.
        premetric: Measure of both deviations.
        score_weight: Factor of the score's part, >= 0.

    Source: Tong et al., Simulation-free Schroedinger bridges via score and flow matching, 2023,
    arXiv 2307.03672, eq. 8 and the authors' code.
    """

    trains_score = True

    def __init__(
        self,
        noise: BridgeNoise,
        *,
        weighting: Weighting,
        premetric: Premetric,
        score_weight: float = 1.0,
    ) -> None:
        super().__init__(noise, weighting=weighting, premetric=premetric)
        if not score_weight >= 0.0:
            raise ValueError(f"score_weight is {score_weight}; expected a number >= 0")
        if noise.scale == 0.0:
            raise ValueError("noise has scale 0; a score needs noise")
        self.score_weight = float(score_weight)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network with a score head."""
        yield from all_of(super().needs(parts), self._head(parts))

    def _head(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.parameterization.score_head:
            rule, outputs = type(parts.parameterization).__name__, 2 * parts.space.channels
            problem = f"{type(self).__name__} trains a score, which {rule} does not predict."
            remedy = f"Use parameterization=flow_and_score network.out_channels={outputs}."
            yield Unmet("parameterization", problem, remedy)

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """One network call; the bridge's normal draws come from ``rng``."""
        point, eps = self.point(model.path, pairs, t, rng=rng)
        found = model.predict(point.x_t, point.t, **pairs.conditions)
        weight = self.weighting(model.path.schedule.coefficients(point.t))
        flow = weight * self.premetric(found.velocity - point.velocity)
        head = found.score * (0.5 * self.noise.scale**2)
        factor = expand_as(self.noise.score_weight(point.t), head)
        score = self.premetric(factor * head + eps)
        metrics = {"flow": flow.detach().mean().float(), "score": score.detach().mean().float()}
        return Loss(weighted(flow + self.score_weight * score, pairs=pairs), metrics)
