"""Phased Rectified Diffusion: a path made first-order segment by segment, without stored pairs."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.regression import point_of, weighted
from flowexp.parameterizations import Conditions
from flowexp.paths import Coefficients
from flowexp.requirements import Parts, Unmet, all_of

__all__ = ["PhasedRectification", "Segment", "segment_between"]


@dataclass(frozen=True)
class Segment:
    """The pair (x, e), (B, ...) each, whose conditional path passes through two given states."""

    data: Tensor
    noise: Tensor

    def at(self, c: Coefficients) -> Tensor:
        """``alpha x + sigma e``."""
        alpha, sigma = expand_as(c.alpha, self.data), expand_as(c.sigma, self.data)
        return alpha * self.data + sigma * self.noise


def segment_between(
    x_start: Tensor, start: Coefficients, x_end: Tensor, end: Coefficients
) -> Segment:
    """The pair on whose path both states (B, ...) lie, the noisier first; also at alpha = 0.

    ``e = (alpha_e x_s - alpha_s x_e) / d``, ``x = (sigma_s x_e - sigma_e x_s) / d``,
    ``d = alpha_e sigma_s - alpha_s sigma_e``.
    """
    determinant = expand_as(end.alpha * start.sigma - start.alpha * end.sigma, x_start)
    s, e = (c.map(lambda column: expand_as(column, x_start)) for c in (start, end))
    noise = (e.alpha * x_start - s.alpha * x_end) / determinant
    data = (s.sigma * x_end - e.sigma * x_start) / determinant
    return Segment(data, noise)


class PhasedRectification(Objective):
    """``premetric(DDIM step of the student to s_{m-1} minus the teacher's state there)``.

    ``[0, t_max]`` is cut at equal times s_m into segments. The data x and a fresh e give the state
    at the start s_m of the segment of t; the teacher's DDIM steps lead to its end s_{m-1}; both
    states define a pair (:func:`segment_between`) and with it x_t; from there the student must
    reach the end in one step. Such a model needs as many steps as there are segments, at their
    boundaries (sampler=ddim, time_grid=uniform).

    Args:
        teacher: The frozen flow, possibly guided.
        segments: Number of segments, >= 1; with one, e is the pair's own noise if and only if the
            teacher is of first order.
        substeps: DDIM steps of the teacher in each, >= 1.
        premetric: Measure of the deviation.

    Source: Wang et al., Rectified Diffusion, 2024, arXiv 2410.07303, section 3.4, and the authors'
    train_phased.py: 4 segments of 10 substeps, pseudo-Huber per element, guidance 3. As there, the
    first segment ends at the smallest time of the teacher, not at t = 0.
    """

    def __init__(
        self, *, teacher: Model, segments: int = 4, substeps: int = 10, premetric: Premetric
    ) -> None:
        for name, value in (("segments", segments), ("substeps", substeps)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        self.teacher = teacher
        self.segments = int(segments)
        self.substeps = int(substeps)
        self.premetric = premetric

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        yield from all_of(super().needs(parts), self._path_of_the_teacher(parts))

    def _path_of_the_teacher(self, parts: Parts) -> Iterator[Unmet]:
        own, path = self.teacher.path.schedule.identity(), parts.path.schedule.identity()
        if own != path:
            problem = f"PhasedRectification keeps the teacher's path {own}, but the path is {path}."
            yield Unmet(".", problem, "Take the teacher's path.")

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """``substeps`` calls of the teacher and one of the student; draws nothing of its own."""
        t, conditions = t.to(pairs.x.device), pairs.conditions
        start, end = self.boundaries(t)
        x_start = point_of(pairs, model.path, start).x_t
        x_end = self.walk(x_start, start, end, conditions=conditions)
        states = (x_start, start), (x_end, end)
        value = self.deviation(model, *states, t=torch.maximum(t, end), conditions=conditions)
        return Loss(weighted(value, pairs=pairs))

    def boundaries(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Start and end of the segment (end, start] that contains each time, (B,) each."""
        low, high = self.teacher.time_range
        length = self.teacher.path.schedule.t_max / self.segments
        # Rounding must not put a boundary into the next segment.
        number = torch.ceil(t / length - 1e-9).clamp(1, self.segments)
        return (number * length).clamp(max=high), ((number - 1.0) * length).clamp(min=low)

    @torch.no_grad()
    def walk(self, x: Tensor, start: Tensor, end: Tensor, *, conditions: Conditions) -> Tensor:
        """The teacher's states (B, ...) at times ``end``, (B,), by DDIM from ``x`` at ``start``."""
        schedule, (low, _) = self.teacher.path.schedule, self.teacher.time_range
        length = schedule.t_max / self.segments / self.substeps
        t = start
        for number in range(1, self.substeps + 1):
            prediction = self.teacher.predict(x, t, **conditions)
            later = (start - number * length).clamp(min=low)
            t = end if number == self.substeps else torch.maximum(later, end)
            x = Segment(prediction.data, prediction.noise).at(schedule.coefficients(t))
        return x

    def deviation(
        self,
        model: Model,
        start: tuple[Tensor, Tensor],
        end: tuple[Tensor, Tensor],
        *,
        t: Tensor,
        conditions: Conditions,
    ) -> Tensor:
        """The premetric of the student's error at the end of the segment, (B,).

        ``start`` and ``end`` are state and time at both ends of the segment, ``t`` the times within
        it from which the student steps, (B,), float64.
        """
        schedule = model.path.schedule
        at_start, at_end = (schedule.coefficients(time) for _, time in (start, end))
        segment = segment_between(start[0], at_start, end[0], at_end)
        prediction = model.predict(segment.at(schedule.coefficients(t)), t, **conditions)
        landed = Segment(prediction.data, prediction.noise).at(at_end)
        return self.premetric(landed - end[0])
