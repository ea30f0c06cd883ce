"""Drivers: the velocity along which the first leg of a leap goes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.networks.base import without_conditions
from flowexp.objectives.flow_map.leaps import Itself, Leap, Target
from flowexp.requirements import NEVER_LEARNT, Part, Parts, Unmet, all_of

__all__ = ["DataVelocity", "Driver", "OwnStep", "OwnVelocity", "TeacherVelocity"]


class Driver(Part, ABC):
    """The velocity d of the first leg, ``x_s = x_t - (t - s) d``.

    Attributes:
        averages: Names of the averages of the weights that it needs.
        knows_diagonal: Whether at s = t it tells the true velocity, as data and teachers do; the
            model's own predictions do not.
    """

    averages: tuple[str, ...] = ()
    knows_diagonal: bool = True

    @abstractmethod
    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        """d, (B, ...), without gradient (the caller sees to that); ``s`` is (B,), float64."""


class DataVelocity(Driver):
    """``alpha' x + sigma' e``: that of the pair, unbiased and noisy."""

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        return leap.velocity


class TeacherVelocity(Driver):
    """The velocity of a frozen model at (x_t, t), ``v_c + (scale - 1)(v_c - v_u)`` if guided.

    Args:
        teacher: The model.
        guidance_scale: 1 = not guided, one call; otherwise it is also asked without label, v_u.

    Source: Ho & Salimans, 2022, arXiv 2207.12598.
    """

    def __init__(self, *, teacher: Model, guidance_scale: float = 1.0) -> None:
        self.teacher = teacher
        self.guidance_scale = float(guidance_scale)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """The teacher's path, and a teacher that knows what guidance asks."""
        yield from all_of(self._path(parts), self._guidance())

    def _path(self, parts: Parts) -> Iterator[Unmet]:
        own, path = self.teacher.path.identity(), parts.path.identity()
        if own != path:
            problem = f"the teacher's path is {own}, but the path is {path}."
            yield Unmet(".", problem, "Take the teacher's path.")

    def _guidance(self) -> Iterator[Unmet]:
        if self.guidance_scale != 1.0 and self.teacher.labels_dropped is False:
            problem = f"guidance asks the teacher without label, {NEVER_LEARNT}."
            remedy = (
                "Set guidance_scale=1, or take a teacher trained with network.label_dropout=0.1."
            )
            yield Unmet(".guidance_scale", problem, remedy, False)

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        velocity = self.teacher.velocity(leap.x_t, leap.t, **leap.conditions)
        if self.guidance_scale == 1.0:
            return velocity
        dropped = without_conditions(leap.conditions)
        without = self.teacher.velocity(leap.x_t, leap.t, **dropped)
        return torch.lerp(without, velocity, self.guidance_scale)


class _Own(Driver):
    """A prediction of the model in training, or of an average of it."""

    knows_diagonal = False

    def __init__(self, *, target: Target | None = None) -> None:
        self.target = target or Itself()
        self.averages = self.target.averages


class OwnVelocity(_Own):
    """``u(x_t, t, t)`` of the model itself."""

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        own = self.target.of(model)
        return own.average_velocity(leap.x_t, leap.t, leap.t, **leap.conditions)


class OwnStep(_Own):
    """``u(x_t, t, s)`` of the model itself: its own step over the whole first leg."""

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        own = self.target.of(model)
        return own.average_velocity(leap.x_t, leap.t, s, **leap.conditions)
