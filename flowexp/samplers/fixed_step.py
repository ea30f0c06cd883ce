"""Samplers that walk a time grid."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, Required, TypedDict

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.paths import Path, Prediction
from flowexp.samplers.base import (
    ROUNDING,
    CountedModel,
    Sampler,
    Samples,
    StepObserver,
    TimeGrid,
    known_times,
)
from flowexp.samplers.field import Field, Interval, Intervals, Node, States, Time, Variable
from flowexp.samplers.time_grids import Natural
from flowexp.seeding import Noise

__all__ = ["FixedStepSampler", "Stepping", "SteppingInTime"]

_MOST_STEPS = 10**6


class SteppingInTime(TypedDict, total=False):
    """As :class:`Stepping`, for methods that have a variable of their own."""

    steps: Required[int]
    time_grid: TimeGrid | None
    double: bool
    analytic_first_step: bool


class Stepping(SteppingInTime, total=False):
    """The arguments of :class:`FixedStepSampler`, for subclasses that only pass them on."""

    variable: Variable | None


class FixedStepSampler(Sampler):
    """A sampler that walks a time grid.

    A one-step method implements :meth:`step`. A method that uses earlier steps implements
    :meth:`walk` and keeps its memory in local variables: a sampler object has no state, so one
    object serves any number of calls.

    The steps begin and end at times the model was trained at (``Model.nearest_time``), as in EDM. A
    grid that is finer than the model's noise levels has empty steps: see ``passes_over_empty``.

    Args:
        steps: Number of steps, >= 1.
        time_grid: The times between the steps; None = :meth:`default_grid`.
        variable: The variable in which steps are taken; None = the path's time.
        double: Keep the state in float64 between steps, so that rounding does not blur comparisons
            of solvers; costs little beside a network. Else float32.
        analytic_first_step: Take the prediction at the first time from a formula, which saves an
            evaluation ("AFS"): the noise is ``x_t / sqrt(alpha^2 + sigma^2)``, right up to the
            order of ``(alpha/sigma)^2`` for data of mean 0. A mean m of the data adds an error of
            ``m alpha/sigma``, which a long first step carries into the sample.

    Attributes:
        invertible: Whether the steps can be reversed; not if a method uses the source draw again
            after its start.
        passes_over_empty: Whether :meth:`walk` gets only the intervals that are not empty.

    Source: the analytical first step is from Zhou et al., AMED, 2024, arXiv 2312.00094 (their code
    has this noise), after Dockhorn et al., GENIE, 2022, arXiv 2210.05475.
    """

    later_options: ClassVar[Mapping[str, object]] = {"analytic_first_step": False}
    invertible: bool = True
    passes_over_empty: bool = False

    def __init__(
        self,
        *,
        steps: int,
        time_grid: TimeGrid | None = None,
        variable: Variable | None = None,
        double: bool = True,
        analytic_first_step: bool = False,
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps is {steps}; expected at least 1")
        if steps > _MOST_STEPS:
            raise ValueError(f"steps is {steps}; expected at most {_MOST_STEPS}")
        self.steps = steps
        self.time_grid = self.default_grid() if time_grid is None else time_grid
        self.variable = Time() if variable is None else variable
        self.dtype = torch.float64 if double else torch.float32
        self.analytic_first_step = analytic_first_step

    def default_grid(self) -> TimeGrid:
        """The time grid where none is given; the same as in the method's yaml."""
        return Natural()

    def step(self, field: Field, z: Tensor, interval: Interval, noise: Noise | None) -> Tensor:
        """The state at the interval's end from the state ``z`` at its start, as a new tensor."""
        raise NotImplementedError(f"{type(self).__name__} implements neither step nor walk")

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        """The states at the ends of the intervals, one after the other."""
        for interval in intervals:
            z = self.step(field, z, interval, noise)
            yield z

    def states(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        """The states at the ends of all intervals, by :meth:`walk`."""
        if not (self.passes_over_empty and any(interval.is_empty for interval in intervals)):
            return self.walk(field, z, intervals, noise)
        moved = self.walk(field, z, [i for i in intervals if not i.is_empty], noise)
        return _with_pauses(z, intervals, moved)

    @torch.inference_mode()
    def sample(
        self,
        model: Model,
        e: Tensor,
        *,
        noise: Noise | None = None,
        on_step: StepObserver | None = None,
        **conditions: Tensor | None,
    ) -> Samples:
        """Walk the grid from ``sigma(t_0) e``; ``on_step`` gets t as a float64 scalar.

        Raises:
            ValueError: The time grid leaves the model's range, the variable is infinite on it, or
                the method's noise is missing or wrong for the path's source.
        """
        super().check(model)
        if self.needs_gaussian and noise is None:
            raise ValueError(f"{type(self).__name__} adds noise at each step, but noise is None")
        counted = CountedModel(model)
        field = Field(counted, variable=self.variable, conditions=conditions, device=e.device)
        nodes = field.nodes(self.times(model))
        if self.analytic_first_step:
            nodes = _with_analytic_start(nodes, path=model.path)
        x = model.path.start(e.to(self.dtype), nodes[0].t)
        if on_step is not None:
            on_step(nodes[0].t, x)
        z = field.enter(x, nodes[0])
        intervals = [Interval(a, b, i, self.steps) for i, (a, b) in enumerate(pairwise(nodes))]
        states = self.states(field, z, intervals, noise)
        for interval, z in zip(intervals, states, strict=True):
            if on_step is not None:
                on_step(interval.end.t, field.leave(z, interval.end))
        nfe = torch.full((e.shape[0],), counted.evaluations, dtype=torch.int64)
        return Samples(field.leave(z, nodes[-1]).to(e.dtype), nfe)

    def check(self, model: Model) -> None:
        super().check(model)
        device = torch.device("cpu")
        Field(model, variable=self.variable, conditions={}, device=device).nodes(self.times(model))

    def describe(self) -> str:
        first = ", analytic first step" if self.analytic_first_step else ""
        return f"{super().describe()}, {self.steps} steps{first}"

    def ends_in_euler(
        self, field: Field, nodes: Sequence[Node], *, final_euler: bool | None
    ) -> bool:
        """Whether a step to t = 0 is Euler's, which needs no evaluation at its end.

        ``final_euler``: True = yes; None = only where the model is undefined at one of ``nodes``,
        those of a full step; False = no, which is a ValueError there.
        """
        if final_euler:
            return True
        defined = all(field.defined_at(node) for node in nodes)
        if final_euler is False and not defined:
            raise ValueError(
                f"final_euler is False, but a full step of {type(self).__name__} to t=0 evaluates "
                f"the model below the smallest time at which it is defined, "
                f"{field.model.time_range[0]}; set final_euler to null or true"
            )
        return not defined

    def times(self, model: Model) -> Tensor:
        """The grid's times, moved to the nearest ones that the model was trained at.

        A ValueError if a time but the last leaves the model's range. Neighbours may be equal: see
        :func:`known_times`.
        """
        times = self.time_grid.times(model, self.steps)
        listed = times.tolist()
        low, high = model.time_range
        if len(listed) != self.steps + 1:
            raise ValueError(
                f"{self.time_grid!r} gives {len(listed)} times; steps={self.steps} needs "
                f"{self.steps + 1}"
            )
        if any(b >= a for a, b in pairwise(listed)) or listed[-1] < 0.0:
            raise ValueError(f"{self.time_grid!r} gives times that do not decrease to 0: {listed}")
        if listed[0] > high * (1.0 + ROUNDING) or listed[-2] < low * (1.0 - ROUNDING):
            raise ValueError(
                f"{self.time_grid!r} evaluates the model between t={listed[0]} and t={listed[-2]}, "
                f"but it is defined on [{low}, {high}]; only the last time may lie outside"
            )
        return known_times(model, times)


def _with_pauses(z: Tensor, intervals: Intervals, moved: States) -> States:
    """The states at the ends of all intervals from those at the ends of the ones not empty."""
    for interval in intervals:
        z = z if interval.is_empty else next(moved)
        yield z


def _with_analytic_start(nodes: Sequence[Node], *, path: Path) -> list[Node]:
    """The nodes, the model replaced by the analytic one at the first of them."""
    first = nodes[0]
    c = path.schedule.coefficients(first.t.to("cpu"))
    alpha, sigma = float(c.alpha), float(c.sigma)
    radius = math.hypot(alpha, sigma)
    # The data that go with the noise x_t / radius, in the form that alpha = 0 does not hurt.
    factor = alpha / (radius * (radius + sigma))

    def analytic(x_t: Tensor, **conditions: Tensor | None) -> Prediction:
        return Prediction.of_data(path, x_t, first.t, x_t * factor)

    # A grid finer than the model's levels may begin with an empty step.
    return [replace(node, evaluate=analytic) if node.time == first.time else node for node in nodes]
