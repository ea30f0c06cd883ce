"""What the parts of a flow map's objective share: the rows of a batch, and whose predictions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from flowexp.models import Model
from flowexp.parameterizations import Conditions
from flowexp.requirements import Part

__all__ = ["Average", "Itself", "Leap", "Target"]


@dataclass(frozen=True)
class Leap:
    """The way of every row from (x_t, t) to r.

    Attributes:
        x: Data, (B, ...), float64, as all states here.
        e: Source draws.
        x_t: States at t.
        velocity: Velocity ``alpha' x + sigma' e`` of the pair at t.
        t: Where it starts, (B,), float64.
        r: Where it ends, r <= t.
        middle: A time in between, if the law of the times gives one.
        conditions: Conditions of the rows.
        uniforms: Numbers in (0, 1) for each part of the objective, by its argument's name: (B, k),
            float64, with k as many as the part says it needs.
        dropped: Rows without their label or caption, (B,) bool; None = none was dropped on purpose.
        images_seen: Images of the training before this batch.
    """

    x: Tensor
    e: Tensor
    x_t: Tensor
    velocity: Tensor
    t: Tensor
    r: Tensor
    middle: Tensor | None
    conditions: Conditions
    uniforms: Mapping[str, Tensor]
    dropped: Tensor | None = None
    images_seen: int = 0

    def rows(self, chosen: Tensor) -> "Leap":
        """The chosen rows, (B,) bool."""
        conditions = {k: None if c is None else c[chosen] for k, c in self.conditions.items()}
        uniforms = {name: u[chosen] for name, u in self.uniforms.items()}
        return Leap(
            x=self.x[chosen],
            e=self.e[chosen],
            x_t=self.x_t[chosen],
            velocity=self.velocity[chosen],
            t=self.t[chosen],
            r=self.r[chosen],
            middle=None if self.middle is None else self.middle[chosen],
            conditions=conditions,
            uniforms=uniforms,
            dropped=None if self.dropped is None else self.dropped[chosen],
            images_seen=self.images_seen,
        )


class Target(Part, ABC):
    """Whose predictions make the target; they have no gradient.

    Attributes:
        averages: Names of the averages of the weights that it needs.
    """

    averages: tuple[str, ...] = ()

    @abstractmethod
    def of(self, model: Model) -> Model:
        """The model that is asked, for a ``model`` in training."""


class Itself(Target):
    """The network in training."""

    def of(self, model: Model) -> Model:
        return model


class Average(Target):
    """An average of the network's weights.

    Args:
        name: Its name in the config group ``ema``.
    """

    def __init__(self, *, name: str = "main") -> None:
        self.name = name
        self.averages = (name,)

    def of(self, model: Model) -> Model:
        return model.average(self.name)
