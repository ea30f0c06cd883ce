"""Training of flow maps without stored pairs: one objective for the methods of one and few steps.

=====================  ======================  ===============  ===================================
method                 driver d                leg              regressed
=====================  ======================  ===============  ===================================
flow matching          data velocity           r = t            average velocity
MeanFlow               data velocity           a -> 0           average velocity, adaptive weight
SplitMeanFlow, PSD-U   own step                a ~ U(0, 1)      average velocity
Shortcut, PSD-M        own step                a = 1/2          average velocity
=====================  ======================  ===============  ===================================
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.flow_map.drivers import DataVelocity, Driver
from flowexp.objectives.flow_map.error_weights import ErrorWeight, Unchanged
from flowexp.objectives.flow_map.leaps import Itself, Leap, Target
from flowexp.objectives.flow_map.legs import Leg, Legs
from flowexp.objectives.flow_map.regressions import AverageVelocity, Regressed
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.regression import point_of, weighted
from flowexp.objectives.weightings import Uniform, Weighting
from flowexp.requirements import Parts, Unmet, all_of, on_flow_map, within
from flowexp.seeding import open_uniform

__all__ = ["FlowMapMatching"]


class FlowMapMatching(Objective):
    """``weight premetric(u(x_t, t, r) - u_tgt)``: the average velocity against that of two legs.

    The target, without gradient, goes a first leg of relative length a along a driver and the rest
    of the way by the flow map itself; see :mod:`flowexp.objectives.flow_map.legs`. States,
    predictions and errors are float64, the network runs in float32 as always.

    Args:
        driver: Velocity of the first leg.
        leg: How long it is.
        regressed: What of the flow map is compared.
        premetric: Measure of the difference.
        error_weight: How the measured error of a row becomes its loss.
        target: Whose prediction is the second leg; None = the network itself.
        diagonal: The velocity of rows with r = t; None = the driver, or that of the data where the
            driver is the model itself.
        weighting: Loss weight as a function of t; None = 1.

    Source: Boffi et al., 2025, arXiv 2505.18825 (flow maps); the methods' sources are with the
    parts and in their configs.
    """

    def __init__(
        self,
        *,
        driver: Driver,
        leg: Leg,
        premetric: Premetric,
        regressed: Regressed | None = None,
        error_weight: ErrorWeight | None = None,
        target: Target | None = None,
        diagonal: Driver | None = None,
        weighting: Weighting | None = None,
    ) -> None:
        self.driver = driver
        self.leg = leg
        self.premetric = premetric
        self.regressed = regressed or AverageVelocity()
        self.error_weight = error_weight or Unchanged()
        self.target = target or Itself()
        self.diagonal = diagonal or (driver if driver.knows_diagonal else DataVelocity())
        self.weighting = weighting or Uniform()
        self.columns = leg.columns
        self.drawn = {"leg": leg.uniforms}
        self.uniforms = sum(self.drawn.values())
        names = (*driver.averages, *self.diagonal.averages, *self.target.averages)
        self.averages = tuple(dict.fromkeys(names))

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network with a second time, times r and t, and what the parts need."""
        yield from all_of(
            super().needs(parts),
            self._flow_map(parts),
            within("driver", self.driver.needs(parts)),
            within("leg", self.leg.needs(parts)),
            within("diagonal", self.diagonal.needs(parts)),
        )

    def _flow_map(self, parts: Parts) -> Iterator[Unmet]:
        yield from on_flow_map(parts, name=type(self).__name__)

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """One call of the network with gradient, and the calls that the parts document."""
        leap = self.leap(model, pairs, t, rng=rng)
        legs = Legs(self.driver, self.target, self.diagonal)
        comparison = self.leg.compare(model, leap, legs)
        error = self.premetric(self.regressed.difference(comparison, leap))
        value = self.error_weight(error, leap, comparison)
        weight = self.weighting(model.path.schedule.coefficients(leap.t))
        metrics = {"error": error.detach().mean().float()}
        return Loss(weighted(value, weight=weight, pairs=pairs), metrics)

    def leap(self, model: Model, pairs: Pairs, times: Tensor, *, rng: torch.Generator) -> Leap:
        """The rows of a batch, whose times are columns (B, 2) or (B, 3)."""
        columns = times.to(pairs.x.device).unbind(1)
        point = point_of(pairs, model.path, columns[0])
        uniforms = pairs.uniforms
        if uniforms is None:
            uniforms = open_uniform((len(times), self.uniforms), rng=rng)
        return Leap(
            x=point.x,
            e=point.e,
            x_t=point.x_t,
            velocity=point.velocity,
            t=columns[0],
            r=columns[1],
            middle=columns[2] if len(columns) > 2 else None,
            conditions=pairs.conditions,
            uniforms=self._allotted(uniforms.to(pairs.x.device)),
            images_seen=pairs.images_seen,
        )

    def _allotted(self, uniforms: Tensor) -> dict[str, Tensor]:
        """The random numbers of each part, by the name of its argument."""
        allotted, start = {}, 0
        for name, count in self.drawn.items():
            allotted[name] = uniforms[:, start : start + count]
            start += count
        return allotted
