"""Drivers: the velocity along which the first leg of a leap goes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor

from flowexp.models import Model
from flowexp.objectives.flow_map.leaps import Itself, Leap, Target
from flowexp.requirements import Part, Parts, Unmet

__all__ = [
    "DataVelocity",
    "Driver",
    "HeadVelocity",
    "OwnStep",
    "OwnVelocity",
    "TeacherVelocity",
]


class Driver(Part, ABC):
    """The velocity d of the first leg, ``x_s = x_t - (t - s) d``.

    Attributes:
        averages: Names of the averages of the weights that it needs.
        knows_diagonal: Whether at s = t it tells the true velocity, as data and teachers do; the
            model's own predictions do not.
        guides: Whether it compares predictions with and without label.
    """

    averages: tuple[str, ...] = ()
    knows_diagonal: bool = True
    guides: bool = False

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


class OwnVelocity(_Own):
    """``u(x_t, t, t)`` of the model itself."""

    def velocity(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        own, now = self.target.of(model), leap.instant()
        return own.average_velocity(now.x_t, now.t, now.r, **now.conditions)


class HeadVelocity(_Own):
    """``v(x_t, t)`` of the model's velocity head, or ``u(x_t, t, t)`` if it has none.

    Args:
        target: Whose prediction; None = the network in training.
        labelled: Whether rows whose label is dropped have it here, as in the authors' code.

    Source: Geng et al., improved MeanFlow, 2025, arXiv 2512.02012: the direction of the derivative.
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
