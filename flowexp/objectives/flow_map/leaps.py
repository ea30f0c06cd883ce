"""What the parts of a flow map's objective share: the rows of a batch, and whose predictions."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

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
        uniforms: Numbers in (0, 1) of the rows, (B, k), float64.
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
    uniforms: Tensor
    images_seen: int = 0

    def rows(self, chosen: Tensor) -> "Leap":
        """The chosen rows, (B,) bool."""
        conditions = {k: None if c is None else c[chosen] for k, c in self.conditions.items()}
        names = ("x", "e", "x_t", "velocity", "t", "r", "uniforms")
        middle = None if self.middle is None else self.middle[chosen]
        columns = {name: getattr(self, name)[chosen] for name in names}
        return replace(self, conditions=conditions, middle=middle, **columns)


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
