"""Drivers: the velocity along which the first leg of a leap goes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor

from flowexp.models import Model
from flowexp.objectives.flow_map.leaps import Itself, Leap, Target
from flowexp.requirements import Part, Parts, Unmet, on_any_end

__all__ = ["DataVelocity", "Driver", "OwnStep", "OwnVelocity", "TeacherVelocity"]


class Driver(Part, ABC):
    """The velocity d of the first leg, ``x_s = x_t - (t - s) d``.

    Attributes:
        averages: Names of the averages of the weights that it needs.
        knows_diagonal: Whether at s = t it tells the true velocity, as data and teachers do; the
            model's own predictions do not.
        gradient: Whether d has a gradient.
    """

    averages: tuple[str, ...] = ()
    knows_diagonal: bool = True
    gradient: bool = False

    @abstractmethod
    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        """d, (B, ...); ``s`` is (B,), float64. Its gradient is stopped by :meth:`Legs.drive`."""


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
        self.gradient = self.target.gradient

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A flow map to all times."""
        yield from on_any_end(parts, name=type(self).__name__)


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
