"""Drivers: the velocity along which the first leg of a leap goes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor

from flowexp.models import Model
from flowexp.objectives.flow_map.leaps import Itself, Leap, Target
from flowexp.requirements import Part, Parts, Unmet

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
    """The velocity of a frozen model at (x_t, t)."""

    def __init__(self, *, teacher: Model) -> None:
        self.teacher = teacher

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """The teacher's path."""
        own, path = self.teacher.path.identity(), parts.path.identity()
        if own != path:
            problem = f"the teacher's path is {own}, but the path is {path}."
            yield Unmet(".", problem, "Take the teacher's path.")

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        return self.teacher.velocity(leap.x_t, leap.t, **leap.conditions)


class _Own(Driver):
    """A prediction of the model in training, or of an average of it."""

    knows_diagonal = False

    def __init__(self, *, target: Target | None = None) -> None:
        self.target = target or Itself()
        self.averages = self.target.averages

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Rows with r = t, without which any velocity constant in time would fit; a warning."""
        if parts.timestep.anchored == 0.0:
            name, law = type(self).__name__, type(parts.timestep).__name__
            problem = f"{name} is the model's own, and {law} draws no r = t to tie it to the data."
            remedy = "Set timestep.diagonal=0.5, or use timestep=sorted."
            yield Unmet("timestep", problem, remedy, False)


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
