"""Distillation to one step, with two steps of the teacher flow as target."""

from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.perceptual_regression import (
    PerceptualDistance,
    check_files,
    compared_images,
)
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.regression import weighted
from flowexp.objectives.weightings import Uniform, Weighting
from flowexp.parameterizations import Conditions
from flowexp.paths import Linear
from flowexp.requirements import Parts, Unmet, all_of
from flowexp.seeding import open_uniform

__all__ = ["FlowGuided"]


class FlowGuided(Objective):
    """``D(e - v_s(e, 1), x_T)``: one step of the student against two steps to the same end.

    e is fresh noise, ``tau = 1 - t`` the length of the first jump:
    ``z = e - tau v_1(e, 1)``, ``x_T = z - (1 - tau) v_T(z, t)``; v_T is the frozen teacher, v_1 the
    student without gradient (one call of the teacher) or the teacher (two calls). The gradient goes
    through the student's step alone. Since ``x = e - v``, differences of velocities and of images
    are the same.

    Args:
        teacher: The flow: for SlimFlow the 2-rectified flow that the student starts from.
        student_first: Whether the student makes the first jump.
        low: Smallest t of the second evaluation, >= 0.
        high: Largest, in (low, 1].
        start_time: The time given to the networks for "t = 1", where the state is e alone, in
            [high, 1]; None = the last time of the path. The authors' code has 0.999.
        premetric: Measure of the deviation of the velocity; None = not used.
        perceptual: Distance of the images x_s and x_T, added to it; None = not used. One of the
            two is needed.
        weighting: Weight of both as a function of t; None = 1.

    Source: Zhu et al., SlimFlow, 2024, arXiv 2407.12718, section 4.2. The defaults are the authors'
    code (and their section 4.1: better and cheaper): the student jumps first, t in [0.2, 0.8]. The
    paper's formulas: the teacher jumps first, t in [0, 1]. Their LPIPS enlarges both images
    to 64 with aligned corners; here they are enlarged as for every LPIPS.
    """

    def __init__(
        self,
        *,
        teacher: Model,
        student_first: bool = True,
        low: float = 0.2,
        high: float = 0.8,
        start_time: float | None = None,
        premetric: Premetric | None = None,
        perceptual: PerceptualDistance | None = None,
        weighting: Weighting | None = None,
    ) -> None:
        if not 0.0 <= low < high <= 1.0:
            raise ValueError(f"need 0 <= low < high <= 1, got low={low}, high={high}")
        if start_time is not None and not high <= start_time <= 1.0:
            raise ValueError(
                f"start_time is {start_time}; expected a time between high={high} and 1, or null"
            )
        if premetric is None and perceptual is None:
            raise ValueError("premetric and perceptual are both null; expected at least one")
        self.teacher = teacher
        self.student_first = student_first
        self.low = float(low)
        self.high = float(high)
        self.start_time = None if start_time is None else float(start_time)
        self.premetric = premetric
        self.perceptual = perceptual
        self.weighting = weighting or Uniform()

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """The linear path, where alone ``x = e - v``, and images for a perceptual distance."""
        yield from all_of(
            super().needs(parts),
            self._linear(parts, whose="the path"),
            self._linear(self.teacher, whose="the teacher's path"),
            [] if self.perceptual is None else compared_images(parts, self.perceptual),
        )

    def _linear(self, owner: Parts | Model, *, whose: str) -> Iterator[Unmet]:
        schedule = owner.path.schedule
        if not isinstance(schedule, Linear) or schedule.sigma_min != 0.0:
            problem = (
                f"FlowGuided is defined on the linear path to the data, but {whose} is "
                f"{schedule.identity()}."
            )
            yield Unmet(".", problem, "Use path=linear.")

    def check(self) -> None:
        check_files(self.perceptual)

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """One call of the student and one or two of the teacher; e and t come from ``rng``.

        Of the pairs only shape, conditions and weights are used; ``t`` is not.
        """
        shape, device = tuple(pairs.x.shape), pairs.x.device
        e = model.path.source.sample(shape, rng=rng).to(device=device, dtype=torch.float64)
        u = open_uniform((len(e),), rng=rng).to(device)
        second = self.low + (self.high - self.low) * u
        value, metrics = self.deviation(model, e, second, conditions=pairs.conditions)
        weight = self.weighting(model.path.schedule.coefficients(second))
        return Loss(weighted(value, weight=weight, pairs=pairs), metrics)

    def deviation(
        self, model: Model, e: Tensor, t: Tensor, *, conditions: Conditions
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The unweighted loss per sample, (B,), and its parts.

        ``e`` are source draws, (B, ...), ``t`` the times of the second evaluation, (B,), float64.
        """
        last = model.path.schedule.t_max if self.start_time is None else self.start_time
        start = torch.full_like(t, last)
        velocity = model.velocity(e, start, **conditions)
        target = self.target(e, t, start=start, student=velocity, conditions=conditions)
        value, metrics = torch.zeros_like(t), {}
        if self.premetric is not None:
            value = value + self.premetric(velocity - target)
            metrics["premetric"] = value.detach().mean()
        if self.perceptual is not None:
            images = ((e - v).to(torch.float32) for v in (velocity, target))
            distance = self.perceptual(*images)
            metrics["perceptual"] = distance.detach().mean()
            value = value + distance
        return value, metrics

    @torch.no_grad()
    def target(
        self, e: Tensor, t: Tensor, *, start: Tensor, student: Tensor, conditions: Conditions
    ) -> Tensor:
        """``e - x_T``, the mean velocity of the two jumps, without gradient.

        The first evaluation is at time ``start``, (B,), with velocity ``student`` of the student.
        """
        if self.student_first:
            first = student.detach()
        else:
            first = self.teacher.velocity(e, start, **conditions)
        tau = expand_as(1.0 - t, e)
        z = e - tau * first
        second = self.teacher.velocity(z, t, **conditions)
        return tau * first + (1.0 - tau) * second
