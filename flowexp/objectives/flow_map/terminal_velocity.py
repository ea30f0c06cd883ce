"""Terminal velocity matching: the derivative of the flow map in r, plus flow matching."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.flow_map.drivers import DataVelocity
from flowexp.objectives.flow_map.guidance_inputs import GuidanceInputs
from flowexp.objectives.flow_map.labels import LabelDrop
from flowexp.objectives.flow_map.leaps import Leap, Target, partition
from flowexp.objectives.flow_map.legs import Leg, Legs
from flowexp.objectives.flow_map.matching import FlowMapMatching
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.weightings import Weighting

__all__ = ["TerminalVelocityMatching"]


class TerminalVelocityMatching(FlowMapMatching):
    """``d((dX/dr - sg u(sg X, r, r))/w) + d((u(x_q, q, q) - sg v_w)/w)``, d the premetric.

    ``X = X_{t->r}(x_t)``. Its derivative in r, with gradient, is that of the :class:`Lagrangian`
    leg; the velocity at its end is the target network's. Rows with r = t have the second term only,
    which is flow matching of the same pair at a time q of its own. Its target is the guided
    velocity ``v_w = w v + (1 - w) u_0(x_q, q, q)``, where v is the data velocity and u_0 the target
    network's without label. w is the guidance scale that the network receives; it is 1 without a
    scale and in rows that drop their label.

    Args:
        leg: The derivative in r.
        premetric: Measure of both differences.
        target: Target network, for u in the first term and for u_0; None = the one in training.
        weighting: Loss weight as a function of t; None = 1.
        labels: Rule for dropping labels; None = none is dropped here.
        guidance_inputs: Distribution of w; None = the network receives no scale.

    Source: Zhou et al., Terminal Velocity Matching, 2025, arXiv 2511.19797, and lumalabs/tvm, where
    the target network is an EMA of decay 0.99, and w also scales the network's output
    (``parameterization.scaled_by_guidance``).
    """

    def __init__(
        self,
        *,
        leg: Leg,
        premetric: Premetric,
        target: Target | None = None,
        weighting: Weighting | None = None,
        labels: LabelDrop | None = None,
        guidance_inputs: GuidanceInputs | None = None,
    ) -> None:
        super().__init__(
            driver=DataVelocity(),
            leg=leg,
            premetric=premetric,
            target=target,
            weighting=weighting,
            labels=labels,
            guidance_inputs=guidance_inputs,
        )
        self.columns = ("t", "r", "diagonal")
        self.laws = ("tvm",)

    def leap(self, model: Model, pairs: Pairs, times: Tensor, *, rng: torch.Generator) -> Leap:
        leap = super().leap(model, pairs, times, rng=rng)
        scale = leap.conditions.get("guidance_scale")
        if scale is None or leap.dropped is None:
            return leap
        scales = {"guidance_scale": torch.where(leap.dropped, 1.0, scale)}
        return replace(leap, conditions={**leap.conditions, **scales})

    def losses(self, model: Model, leap: Leap) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of both terms, (B,), float64, and each of them."""
        terms = self.terms(model, leap)
        weight = self.weighting(leap.schedule.coefficients(leap.t))
        return weight * torch.stack(list(terms.values())).sum(0), dict(terms)

    def terms(self, model: Model, leap: Leap) -> Mapping[str, Tensor]:
        """The two loss terms, (B,): ``terminal`` and ``diagonal``."""
        scale = leap.conditions.get("guidance_scale")
        w = torch.ones_like(leap.t) if scale is None else scale
        compared = self.leg.compare(model, leap, Legs(self.driver, self.target, self.diagonal))
        now, measure = self.beside(model, leap), self.premetric
        assert measure is not None
        velocity = model.average_velocity(now.x_t, now.t, now.r, **now.conditions)
        ends, beside = (
            measure(difference / expand_as(w, difference))
            for difference in (
                compared.prediction - compared.target,
                velocity - self.guided(model, now, w),
            )
        )
        return {"terminal": torch.where(leap.r < leap.t, ends, 0.0), "diagonal": beside}

    def beside(self, model: Model, leap: Leap) -> Leap:
        """The flow-matching rows: the same pairs at their third times s."""
        assert leap.s is not None
        point = model.path.point(leap.x, leap.e, leap.s)
        return replace(leap, x_t=point.x_t, velocity=point.velocity, t=leap.s, r=leap.s, s=None)

    def guided(self, model: Model, now: Leap, w: Tensor) -> Tensor:
        """``w v + (1 - w) u_0`` with a stop-gradient; one call for rows with w != 1."""
        rows, _ = partition(w != 1.0)
        if len(rows) == 0:
            return now.velocity
        bare, velocity = now.rows(rows).unlabelled(), now.velocity.clone()
        with torch.no_grad():
            target_model = self.target.of(model)
            free = target_model.average_velocity(bare.x_t, bare.t, bare.r, **bare.conditions)
        velocity[rows] = torch.lerp(free, bare.velocity, expand_as(w[rows], free))
        return velocity
