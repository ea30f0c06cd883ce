"""Training flow maps without stored pairs: one objective for one- and few-step generators.

=====================  ======================  ===============  ===================================
method                 driver d                leg              regressed
=====================  ======================  ===============  ===================================
flow matching          data velocity           r = t            average velocity
MeanFlow               data velocity           a -> 0           average velocity, adaptive weight
improved MeanFlow      guided, own direction   a -> 0           average velocity + head, adaptive
alpha-Flow             data velocity, guided   a: 1 -> 0        average velocity, a/(D + c)
SoFlow                 data velocity, guided   a: 1 -> small    residual, a/(D + c)^p
SplitMeanFlow, PSD-U   own step                a ~ U(0, 1)      average velocity
Shortcut, PSD-M        own step                a = 1/2          average velocity
ESD                    own velocity            Euler            average velocity, log-variance
LSD                    none                    Lagrange         average velocity, log-variance
sCT, sCD               data, teacher           a -> 0, r = 0    TrigFlow's output, limited tangent
CT, iCT, ECT, TCM      chord of the pair       ends at given s  end point, r = 0
CD                     step of a teacher       ends at given s  end point, r = 0
=====================  ======================  ===============  ===================================

t is the start of a row, r its end, a the relative length of the first leg, D the measured error.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.networks.base import without_labels
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.flow_map.drivers import DataVelocity, Driver
from flowexp.objectives.flow_map.error_weights import ErrorWeight, Unweighted
from flowexp.objectives.flow_map.guidance_inputs import GuidanceInputs, NoGuidanceInputs
from flowexp.objectives.flow_map.labels import KeepLabels, LabelDrop
from flowexp.objectives.flow_map.leap_weights import LeapWeight, UniformLeaps
from flowexp.objectives.flow_map.leaps import Draws, Leap, OnlineTarget, Target
from flowexp.objectives.flow_map.legs import Leg, Legs
from flowexp.objectives.flow_map.regressions import AverageVelocity, Regressed
from flowexp.objectives.flow_map.same_dropout import SameDropout
from flowexp.objectives.perceptual_regression import check_files
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.regression import point_of, weighted
from flowexp.objectives.weightings import Uniform, Weighting
from flowexp.requirements import Parts, Unmet, all_of, on_flow_map, within
from flowexp.seeding import open_uniform

__all__ = ["FlowMapMatching"]


class FlowMapMatching(Objective):
    """``weight premetric(u(x_t, t, r) - sg u_tgt)``: regression of the average velocity u.

    The target u_tgt, under a stop-gradient (sg), consists of two legs: a driver's velocity over a
    first leg of relative length a, and the flow map itself over the rest; see
    :mod:`flowexp.objectives.flow_map.legs`. States, predictions and errors are float64; the network
    runs in float32.

    Args:
        driver: Velocity of the first leg.
        leg: Length of the first leg, and the form of the target.
        premetric: Measure of the difference; None only if ``regressed`` measures it.
        regressed: The quantity that is compared; None = the average velocity.
        error_weight: Maps the measured error of a row to its loss; None = the error itself.
        target: Network that predicts the second leg (target network); None = the one in training.
        diagonal: Velocity that rows with r = t are regressed on; None = the driver's, or that of
            the data if the driver is the model itself.
        weighting: Loss weight as a function of t; None = 1.
        leap_weight: Further loss weight, as a function of all times of a row; None = 1.
        same_dropout: Whether all calls of the network on a batch share one dropout mask.
        labels: Rule for dropping labels; None = none is dropped here (the network may drop some).
        guidance_inputs: Guidance scale and interval that the network receives; None = none.
        head_weight: Weight, >= 0, of the same loss on the velocity head, with the driver's velocity
            as its target; 0 if the network has no such head.

    Raises:
        ValueError: head_weight is negative, or positive without a known velocity at r = t.

    Source: Boffi et al., Learning flow maps via self-distillation, 2025, arXiv 2505.18825; the
    sources of the methods are given with the parts and in the presets.
    """

    def __init__(
        self,
        *,
        driver: Driver,
        leg: Leg,
        premetric: Premetric | None = None,
        regressed: Regressed | None = None,
        error_weight: ErrorWeight | None = None,
        target: Target | None = None,
        diagonal: Driver | None = None,
        weighting: Weighting | None = None,
        leap_weight: LeapWeight | None = None,
        same_dropout: bool = False,
        labels: LabelDrop | None = None,
        guidance_inputs: GuidanceInputs | None = None,
        head_weight: float = 0.0,
    ) -> None:
        if not head_weight >= 0.0:
            raise ValueError(f"head_weight is {head_weight}; expected a number >= 0")
        if head_weight > 0.0 and (diagonal is not None or not driver.knows_diagonal):
            raise ValueError(
                f"head_weight is {head_weight}, which needs a driver with a known velocity at t "
                f"(the data's or a teacher's) and diagonal=null"
            )
        if head_weight > 0.0 and not leg.compares_head:
            raise ValueError(
                f"head_weight is {head_weight}; expected 0 with {type(leg).__name__}, which "
                f"compares no velocity head"
            )
        self.driver = driver
        self.leg = leg
        self.premetric = premetric
        self.regressed = regressed or AverageVelocity()
        if premetric is None and not (self.regressed.measures_itself and head_weight == 0.0):
            raise ValueError(
                "premetric is null, so nothing measures the difference; expected a premetric, "
                "for example objective/premetric=l2"
            )
        self.error_weight = error_weight or Unweighted()
        self.target = target or OnlineTarget()
        self.diagonal = diagonal or (driver if driver.knows_diagonal else DataVelocity())
        self.weighting = weighting or Uniform()
        self.leap_weight = leap_weight or UniformLeaps()
        self.same_dropout = same_dropout
        self.labels = labels or KeepLabels()
        self.label_dropout = self.labels.label_dropout
        self.guidance_inputs = guidance_inputs or NoGuidanceInputs()
        self.head_weight = float(head_weight)
        self.columns = leg.columns
        self.laws = leg.laws
        self.forward_mode = leg.derivative is not None and leg.derivative.forward_mode
        self.drawn = {
            "leg": leg.uniforms,
            "labels": self.labels.uniforms,
            "guidance_inputs": self.guidance_inputs.uniforms,
        }
        self.uniforms = sum(self.drawn.values())
        names = (*driver.averages, *self.diagonal.averages, *self.target.averages, *leg.averages)
        self.averages = tuple(dict.fromkeys(names))

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network with a second time, times t and r, and what the parts need."""
        yield from all_of(
            super().needs(parts),
            self._flow_map(parts),
            self._end(parts),
            within("driver", self.driver.needs(parts)),
            within("leg", self.leg.needs(parts)),
            () if self.diagonal is self.driver else within("diagonal", self.diagonal.needs(parts)),
            within("error_weight", self.error_weight.needs(parts)),
            within("target", self.target.needs(parts)),
            within("regressed", self.regressed.needs(parts)),
            self._inputs(parts),
            self._dropping(parts),
        )

    def _dropping(self, parts: Parts) -> Iterator[Unmet]:
        guided = self.driver.guides or self.diagonal.guides
        found, dropped = parts.network.label_dropout, self.label_dropout
        if found > 0.0 and (guided or dropped > 0.0):
            problem = f"{found:g} drops labels in the network, but the targets depend on them too."
            remedy = "Set network.label_dropout=0 and objective/labels=drop."
            yield Unmet("network.label_dropout", problem, remedy)
        elif guided and dropped == 0.0:
            name = type(self.driver).__name__
            problem = f"{name} uses the prediction without label, which the network never learns."
            yield Unmet(".labels", problem, "Set objective/labels=drop.", False)

    def _inputs(self, parts: Parts) -> Iterator[Unmet]:
        """The guidance inputs and the head of the network, of which one preset has both."""
        if not parts.parameterization.is_flow_map:
            return  # which is said already
        read = (*self.driver.reads, *self.diagonal.reads)
        undrawn = [name for name in dict.fromkeys(read) if name not in self.guidance_inputs.names]
        if undrawn:
            drawing = type(self.guidance_inputs).__name__
            problem = f"{drawing} draws no {' and no '.join(undrawn)}, by which the driver mixes."
            remedy = "Use objective/guidance_inputs=drawn parameterization=average_velocity_guided."
            yield Unmet(".guidance_inputs", problem, remedy)
            return
        inputs = list(all_of(self.guidance_inputs.needs(parts)))
        headed = list(all_of(self._head(parts)))
        if inputs and headed and self.head_weight > 0.0:
            rule, names = type(parts.parameterization).__name__, self.guidance_inputs.names
            problem = f"{rule} passes the network no {', '.join(names)} and has no velocity head."
            yield Unmet("parameterization", problem, headed[0].remedy)
        else:
            yield from (*inputs, *headed)

    def _head(self, parts: Parts) -> Iterator[Unmet]:
        if parts.parameterization.velocity_head != (self.head_weight > 0.0):
            has = "has a" if parts.parameterization.velocity_head else "has no"
            problem = f"{self.head_weight:g} does not fit the network, which {has} velocity head."
            outputs = 2 * parts.space.channels
            remedy = f"Use parameterization=average_velocity_guided network.out_channels={outputs}."
            if self.head_weight == 0.0:
                remedy = "Set parameterization.velocity_head=false, or objective.head_weight=1."
            yield Unmet(".head_weight", problem, remedy)

    def _flow_map(self, parts: Parts) -> Iterator[Unmet]:
        use = self.leg.suits if self.head_weight == 0.0 else "average_velocity_guided"
        yield from on_flow_map(parts, name=type(self).__name__, use=use)

    @property
    def learned(self) -> nn.Module | None:
        """The error weight, if it is a module."""
        return self.error_weight if isinstance(self.error_weight, nn.Module) else None

    def _end(self, parts: Parts) -> Iterator[Unmet]:
        if parts.parameterization.maps_to_data_only and parts.timestep.ends_early:
            law = type(parts.timestep).__name__
            problem = f"{law} draws r > 0, but the flow map of this model ends at the data only."
            yield Unmet("timestep", problem, "Use parameterization=average_velocity.")

    def check(self) -> None:
        check_files(self.regressed, within="regressed")

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """One network call with gradient, and those that the parts document."""
        if self.same_dropout:
            model = SameDropout(model)
        value, errors = self.losses(model, self.leap(model, pairs, t, rng=rng))
        metrics = {name: error.detach().mean().float() for name, error in errors.items()}
        return Loss(weighted(value, pairs=pairs), metrics)

    def losses(self, model: Model, leap: Leap) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses of the rows, (B,), float64, and their unweighted errors by name."""
        legs = Legs(self.driver, self.target, self.diagonal)
        if self.head_weight > 0.0:
            leap, legs = self._with_known_velocity(model, leap)
        comparison = self.leg.compare(model, leap, legs)
        error = self.regressed.error(comparison, leap, self.premetric)
        value = self.error_weight(error, leap, comparison)
        errors = {"error": error}
        if comparison.head is not None:
            assert self.premetric is not None
            beside = self.premetric(comparison.head - leap.velocity)
            value = value + self.head_weight * self.error_weight(beside, leap, comparison)
            errors["head_error"] = beside
        weight = self.weighting(leap.schedule.coefficients(leap.t))
        of_rows = leap.over_batch(lambda rows: self.leap_weight(rows, leap.schedule))
        return value * weight * of_rows, errors

    def _with_known_velocity(self, model: Model, leap: Leap) -> tuple[Leap, Legs]:
        """The rows with the driver's velocity, the target of both heads, as theirs."""
        with torch.no_grad():
            velocity = self.driver.velocity(model, leap, leap.t)
        known = DataVelocity()
        return replace(leap, velocity=velocity), Legs(known, self.target, known, head=True)

    def leap(self, model: Model, pairs: Pairs, times: Tensor, *, rng: torch.Generator) -> Leap:
        """The rows of a batch, for times (B, 2) or (B, 3), or (B,) with r = 0."""
        uniforms = pairs.uniforms
        if uniforms is None:
            uniforms = open_uniform((len(times), self.uniforms), rng=rng)
        draws = self._draws(times, uniforms, pairs.x.device)
        point = point_of(pairs, model.path, draws.t)
        leap = Leap(
            x=point.x,
            e=point.e,
            x_t=point.x_t,
            velocity=point.velocity,
            t=draws.t,
            r=draws.r,
            s=draws.s,
            uniforms=draws.uniforms,
            schedule=model.path.schedule,
            conditions=pairs.conditions,
            images_seen=pairs.images_seen,
            output_scale=model.output_scale(draws.t, draws.r)
            if self.error_weight.per_output
            else None,
            whole=self._whole(pairs),
            positions=None if pairs.positions is None else pairs.positions.to(pairs.x.device),
        )
        return self._without_some_labels(self._with_guidance_inputs(leap))

    def _draws(self, times: Tensor, uniforms: Tensor, device: torch.device) -> Draws:
        times = times.to(device)
        columns = times.unbind(1) if times.ndim == 2 else (times, torch.zeros_like(times))
        return Draws(
            t=columns[0],
            r=columns[1],
            s=columns[2] if len(columns) > 2 else None,
            uniforms=self._allotted(uniforms.to(device)),
        )

    def _whole(self, pairs: Pairs) -> Draws | None:
        """The draws of the batch of which the pairs are a part, if they are known."""
        whole = pairs.whole
        if whole is None or (whole.uniforms is None and self.uniforms > 0):
            return None
        uniforms = whole.uniforms
        if uniforms is None:
            uniforms = whole.t.new_empty((len(whole.t), 0))
        return self._draws(whole.t, uniforms, pairs.x.device)

    def _with_guidance_inputs(self, leap: Leap) -> Leap:
        found = self.guidance_inputs.conditions(leap)
        return replace(leap, conditions={**leap.conditions, **found}) if found else leap

    def _without_some_labels(self, leap: Leap) -> Leap:
        if self.label_dropout == 0.0:
            return leap
        dropped = leap.over_batch(
            lambda rows: self.labels.dropped(rows, self.leg.may_drop_label(rows))
        )
        bare = without_labels(leap.conditions)
        conditions = {
            name: value if value is bare[name] else _chosen(dropped, bare[name], value)
            for name, value in leap.conditions.items()
        }
        return replace(leap, conditions=conditions, given=leap.conditions, dropped=dropped)

    def _allotted(self, uniforms: Tensor) -> dict[str, Tensor]:
        """The random numbers of each part, by the name of its argument."""
        allotted, start = {}, 0
        for name, count in self.drawn.items():
            allotted[name] = uniforms[:, start : start + count]
            start += count
        return allotted


def _chosen(rows: Tensor, this: Tensor | None, other: Tensor | None) -> Tensor:
    """``this`` in the rows, (B,) bool, and ``other`` elsewhere."""
    assert this is not None
    assert other is not None
    return torch.where(rows.reshape(-1, *[1] * (this.ndim - 1)), this, other)
