"""Training of flow maps without stored pairs: one objective for the methods of one and few steps.

=====================  ======================  ===============  ===================================
method                 driver d                leg              regressed
=====================  ======================  ===============  ===================================
flow matching          data velocity           r = t            average velocity
MeanFlow               data velocity           a -> 0           average velocity, adaptive weight
SplitMeanFlow, PSD-U   own step                a ~ U(0, 1)      average velocity
Shortcut, PSD-M        own step                a = 1/2          average velocity
CT, iCT, ECT, TCM      chord of the pair       ends at given s  end point, r = 0
CD                     step of a teacher       ends at given s  end point, r = 0
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
from flowexp.objectives.flow_map.leap_weights import LeapWeight, UniformLeaps
from flowexp.objectives.flow_map.leaps import Itself, Leap, Target
from flowexp.objectives.flow_map.legs import Leg, Legs
from flowexp.objectives.flow_map.regressions import AverageVelocity, Regressed
from flowexp.objectives.flow_map.same_dropout import SameDropout
from flowexp.objectives.perceptual_regression import check_files
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.regression import point_of, weighted
from flowexp.objectives.weightings import Uniform, Weighting
from flowexp.requirements import Parts, Unmet, all_of, within
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
        premetric: Measure of the difference; None only for a regressed quantity with its own.
        error_weight: How the measured error of a row becomes its loss.
        target: Whose prediction is the second leg; None = the network itself.
        diagonal: The velocity of rows with r = t; None = the driver, or that of the data where the
            driver is the model itself.
        weighting: Loss weight as a function of t; None = 1.
        leap_weight: Further loss weight, as a function of all times of a row; None = 1.
        same_dropout: Whether all calls of the network on a batch share one dropout mask.

    Source: Boffi et al., 2025, arXiv 2505.18825 (flow maps); the methods' sources are with the
    parts and in their configs.
    """

    def __init__(
        self,
        *,
        driver: Driver,
        leg: Leg,
        premetric: Premetric | None,
        regressed: Regressed | None = None,
        error_weight: ErrorWeight | None = None,
        target: Target | None = None,
        diagonal: Driver | None = None,
        weighting: Weighting | None = None,
        leap_weight: LeapWeight | None = None,
        same_dropout: bool = False,
    ) -> None:
        self.driver = driver
        self.leg = leg
        self.premetric = premetric
        self.regressed = regressed or AverageVelocity()
        self.error_weight = error_weight or Unchanged()
        self.target = target or Itself()
        self.diagonal = diagonal or (driver if driver.knows_diagonal else DataVelocity())
        self.weighting = weighting or Uniform()
        self.leap_weight = leap_weight or UniformLeaps()
        self.same_dropout = same_dropout
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
            self._end(parts),
            within("driver", self.driver.needs(parts)),
            within("leg", self.leg.needs(parts)),
            within("diagonal", self.diagonal.needs(parts)),
            within("target", self.target.needs(parts)),
            within("regressed", self.regressed.needs(parts)),
        )

    def _flow_map(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.parameterization.is_flow_map:
            name, rule = type(self).__name__, type(parts.parameterization).__name__
            problem = f"{name} trains a flow map, but {rule} has no second time."
            yield Unmet("parameterization", problem, "Use parameterization=average_velocity.")

    def _end(self, parts: Parts) -> Iterator[Unmet]:
        if parts.parameterization.maps_to_data_only and parts.timestep.ends_early:
            law = type(parts.timestep).__name__
            problem = f"{law} draws r > 0, but the flow map of this model ends at the data only."
            yield Unmet("timestep", problem, "Use parameterization=average_velocity.")

    def check(self) -> None:
        check_files(self.regressed, within="regressed")

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """One call of the network with gradient, and the calls that the parts document."""
        if self.same_dropout:
            model = SameDropout(model)
        leap = self.leap(model, pairs, t, rng=rng)
        error, value = self.errors(model, leap)
        metrics = {"error": error.detach().mean().float()}
        return Loss(weighted(value, pairs=pairs), metrics)

    def errors(self, model: Model, leap: Leap) -> tuple[Tensor, Tensor]:
        """The measured errors of the rows and their weighted losses, (B,), float64."""
        comparison = self.leg.compare(model, leap, Legs(self.driver, self.target, self.diagonal))
        error = self.regressed.error(comparison, leap, self.premetric)
        schedule = model.path.schedule
        weight = self.weighting(schedule.coefficients(leap.t)) * self.leap_weight(leap, schedule)
        return error, self.error_weight(error, leap, comparison) * weight

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
