"""Drivers: the velocity of the first leg."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.networks.base import without_labels
from flowexp.objectives.flow_map.leaps import Leap, OnlineTarget, Target
from flowexp.parameterizations import Conditions
from flowexp.requirements import NEVER_LEARNT, Part, Parts, Unmet, all_of, on_any_end, on_path_of

__all__ = ["DataChord", "DataVelocity", "Driver", "HeadVelocity", "OwnStep", "OwnVelocity",
           "TeacherStep", "TeacherVelocity"]  # fmt: skip


class Driver(Part, ABC):
    """The velocity d of the first leg, ``x_s = x_t - (t - s) d``.

    Attributes:
        averages: Names of the averages of the weights that it needs.
        knows_diagonal: Whether at s = t it is an estimate of the true velocity, as for data and
            teachers; the model's own predictions are not.
        gradient: Whether the gradient flows through d.
        guides: Whether it compares predictions with and without label.
        reads: Names of the guidance inputs of the network that it reads.
    """

    averages: tuple[str, ...] = ()
    knows_diagonal: bool = True
    gradient: bool = False
    guides: bool = False
    reads: tuple[str, ...] = ()

    @abstractmethod
    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        """d, (B, ...); ``s`` is (B,), float64. Its gradient is stopped by :meth:`Legs.drive`."""


class DataVelocity(Driver):
    """``alpha' x + sigma' e``: the conditional velocity of the pair, unbiased but noisy."""

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        return leap.velocity


class DataChord(Driver):
    """``(x_t - x_s)/(t - s)`` of the pair: the first leg ends on the pair's own path at s.

    Consistency training compares two states of one pair. On the linear and VE paths, which are
    straight, this is :class:`DataVelocity`.

    Source: Song et al., Consistency Models, 2023, arXiv 2303.01469, theorem 2.
    """

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        alpha, sigma = model.path.schedule.mean_slopes(leap.t, s)
        return expand_as(alpha, leap.x) * leap.x + expand_as(sigma, leap.e) * leap.e


class TeacherVelocity(Driver):
    """The velocity of a frozen model at (x_t, t), ``v_c + (scale - 1)(v_c - v_u)`` if guided.

    Args:
        teacher: The model.
        guidance_scale: 1 = one call, no guidance; otherwise a second call without label gives v_u.

    Source: Ho & Salimans, 2022, arXiv 2207.12598.
    """

    def __init__(self, *, teacher: Model, guidance_scale: float = 1.0) -> None:
        self.teacher = teacher
        self.guidance_scale = float(guidance_scale)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """The teacher's path, and for guidance a teacher trained with label dropout."""
        yield from all_of(on_path_of(self.teacher, parts), self._guidance())

    def _guidance(self) -> Iterator[Unmet]:
        if self.guidance_scale != 1.0 and self.teacher.labels_dropped is False:
            problem = f"guidance uses the teacher without label, {NEVER_LEARNT}."
            remedy = (
                "Set guidance_scale=1, or take a teacher trained with network.label_dropout=0.1."
            )
            yield Unmet(".guidance_scale", problem, remedy, False)

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        return self.guided(leap.x_t, leap.t, leap.conditions)

    def guided(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """The teacher's guided velocity at any state and time."""
        velocity = self.teacher.velocity(x_t, t, **conditions)
        if self.guidance_scale == 1.0:
            return velocity
        without = self.teacher.velocity(x_t, t, **without_labels(conditions))
        return torch.lerp(without, velocity, self.guidance_scale)


class TeacherStep(TeacherVelocity):
    """One Heun step from t to s along the velocity of a frozen model; two calls of it.

    Where s is below the teacher's time range, it is an Euler step.

    Source: Song et al., Consistency Models, 2023, arXiv 2303.01469, algorithm 2, as in the authors'
    code (heun_solver).
    """

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        first = super().velocity(model, leap, s)
        low = self.teacher.time_range[0]
        x_s = leap.x_t - expand_as(leap.t - s, first) * first
        second = self.guided(x_s, s.clamp(min=low), leap.conditions)
        return torch.where(expand_as(s, first) < low, first, 0.5 * (first + second))


class _Own(Driver):
    """A prediction of the model in training, or of an average of it."""

    knows_diagonal = False

    def __init__(self, *, target: Target | None = None) -> None:
        self.target = target or OnlineTarget()
        self.averages = self.target.averages
        self.gradient = self.target.gradient

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A flow map that ends at any r, and rows with r = t."""
        yield from all_of(on_any_end(parts, name=type(self).__name__), self._anchored(parts))

    def _anchored(self, parts: Parts) -> Iterator[Unmet]:
        """A warning: without rows with r = t, any velocity constant in time has zero loss."""
        if parts.timestep.anchored == 0.0:
            name, law = type(self).__name__, type(parts.timestep).__name__
            problem = (
                f"{name} needs rows with r = t to tie the model to the data, but {law} draws none."
            )
            remedy = "Set timestep.diagonal=0.5, or use timestep=sorted."
            yield Unmet("timestep", problem, remedy, False)


class OwnVelocity(_Own):
    """``u(x_t, t, t)`` of the model itself."""

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        own, now = self.target.of(model), leap.instant()
        return own.average_velocity(now.x_t, now.t, now.r, **now.conditions)


class HeadVelocity(_Own):
    """``v(x_t, t)`` of the model's velocity head, or ``u(x_t, t, t)`` if it has none.

    Args:
        target: Network that predicts it; None = the one in training.
        labelled: Whether rows whose label was dropped keep it here, as in the authors' code.

    Source: Geng et al., improved MeanFlow, 2025, arXiv 2512.02012 (tangent of the JVP).
    """

    def __init__(self, *, target: Target | None = None, labelled: bool = True) -> None:
        super().__init__(target=target)
        self.labelled = labelled

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        own = self.target.of(model)
        now = (leap.labelled() if self.labelled else leap).instant()
        return own.with_velocity_head(now.x_t, now.t, now.r, **now.conditions)[1]


class OwnStep(_Own):
    """``u(x_t, t, s)`` of the model itself: its own step over the whole first leg."""

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        own = self.target.of(model)
        return own.average_velocity(leap.x_t, leap.t, s, **leap.conditions)
