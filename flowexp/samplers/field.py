"""The vector field of one sampling call: model, conditions and variable, evaluated at nodes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.paths import Prediction
from flowexp.samplers.variables import Variable

__all__ = ["Field", "Interval", "Node"]


@dataclass(frozen=True, slots=True)
class Node:
    """A point of the independent variable.

    Attributes:
        u: Value of the solver's variable.
        time: The path's time there.
        t: The same as a float64 scalar tensor on the state's device, for the model.
        scale: ``x_t = scale z``.
    """

    u: float
    time: float
    t: Tensor
    scale: float


@dataclass(frozen=True, slots=True)
class Interval:
    """One step: where it begins and ends, its number and the number of steps in all.

    Attributes:
        start: First node.
        end: Last node; ``end.u < start.u``, except that empty intervals end where they start.
        index: Number of the step, from 0.
        count: Number of steps of the walk.
    """

    start: Node
    end: Node
    index: int
    count: int

    @property
    def length(self) -> float:
        """``h = u_end - u_start``, negative or 0."""
        return self.end.u - self.start.u

    @property
    def is_empty(self) -> bool:
        """Whether it ends where it starts: the model knows no level between the grid's two."""
        return self.end.time == self.start.time

    @property
    def reaches_data(self) -> bool:
        """Whether the step ends at t = 0."""
        return self.end.time == 0.0


class Field:
    """``dz/du`` of a model under fixed conditions.

    Args:
        model: What predicts.
        variable: The solver's variable.
        conditions: Handed to the model at each evaluation.
        device: Device of the state.
    """

    def __init__(
        self,
        model: Model,
        *,
        variable: Variable,
        conditions: Mapping[str, Tensor | None],
        device: torch.device,
    ) -> None:
        self.model = model
        self.variable = variable
        self.conditions = conditions
        self.device = device
        self.schedule = model.path.schedule

    def predict(self, z: Tensor, node: Node) -> Prediction:
        """The model's prediction at state ``z``."""
        x = z if node.scale == 1.0 else z * node.scale
        return self.model.predict(x, node.t, **self.conditions)

    def slope(self, z: Tensor, node: Node) -> Tensor:
        """``dz/du`` at state ``z``."""
        return self.variable.slope(self.predict(z, node))

    def defined_at(self, node: Node) -> bool:
        """Whether the model may be asked at this node."""
        return node.time >= self.model.time_range[0]

    def nodes(self, times: Tensor) -> list[Node]:
        """The nodes at float64 times on the CPU.

        Raises:
            ValueError: The variable is infinite at one of the times.
        """
        values = self.variable.value(self.schedule, times).tolist()
        scales = self.variable.scale(self.schedule, times).tolist()
        for u, time in zip(values, times.tolist(), strict=True):
            if not math.isfinite(u):
                raise ValueError(
                    f"the variable {type(self.variable).__name__} is {u} at t={time} of "
                    f"{self.schedule!r}; start the time grid below it (time_grid=edm does)"
                )
        on_device = times.to(self.device).unbind()
        rows = zip(values, times.tolist(), on_device, scales, strict=True)
        return [Node(u, time, t, scale) for u, time, t, scale in rows]

    def node_at(self, time: float) -> Node:
        """The node at one time."""
        return self.nodes(torch.tensor([time], dtype=torch.float64))[0]

    def between(self, interval: Interval, c: float) -> Node:
        """The node at the fraction ``c`` of an interval, counted from its start."""
        if c == 0.0:
            return interval.start
        if c == 1.0:
            return interval.end
        return self.node(interval.start.u + c * interval.length)

    def node(self, u: float) -> Node:
        """The node at one value of the variable."""
        value = torch.tensor(u, dtype=torch.float64)
        t = self.variable.time(self.schedule, value)
        scale = float(self.variable.scale(self.schedule, t))
        return Node(u, float(t), t.to(self.device), scale)

    def enter(self, x: Tensor, node: Node) -> Tensor:
        """``z = x_t / scale``."""
        return x if node.scale == 1.0 else x / node.scale

    def leave(self, z: Tensor, node: Node) -> Tensor:
        """``x_t = scale z``."""
        return z if node.scale == 1.0 else z * node.scale

    def levels(self, node: Node) -> tuple[float, float]:
        """``(alpha, sigma)`` at a node."""
        c = self.schedule.coefficients(torch.tensor(node.time, dtype=torch.float64))
        return float(c.alpha), float(c.sigma)
