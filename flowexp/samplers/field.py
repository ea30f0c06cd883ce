"""The vector field of one sampling call: model, conditions and variable, evaluated at nodes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.models import Evaluation, Model
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
        evaluate: The model there; must not be called where it is not defined.
    """

    u: float
    time: float
    t: Tensor
    scale: float
    evaluate: Evaluation


@dataclass(frozen=True, slots=True)
class Interval:
    """One step: where it begins and ends, its number and the number of steps.

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
        """Whether it ends where it starts: the model has no level between the grid's two."""
        return self.end.time == self.start.time

    @property
    def reaches_data(self) -> bool:
        """Whether the step ends at t = 0."""
        return self.end.time == 0.0


class Field:
    """``dz/du`` of a model under fixed conditions.

    Args:
        model: The model.
        variable: The solver's variable.
        conditions: Passed to the model at each evaluation.
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
        return node.evaluate(x, **self.conditions)

    def slope(self, z: Tensor, node: Node) -> Tensor:
        """``dz/du`` at state ``z``."""
        return self.variable.slope(self.predict(z, node))

    def defined_at(self, node: Node) -> bool:
        """Whether the model is defined at this node."""
        return node.time >= self.model.time_range[0]

    def nodes(self, times: Tensor) -> list[Node]:
        """The nodes at float64 times on the CPU.

        Raises:
            ValueError: The variable is infinite at one of the times.
        """
        values = self.variable.value(self.schedule, times).tolist()
        scales = self.variable.scale(self.schedule, times)
        for u, time in zip(values, times.tolist(), strict=True):
            if not math.isfinite(u):
                raise ValueError(
                    f"the variable {type(self.variable).__name__} is {u} at t={time} of "
                    f"{self.schedule!r}; start the time grid below it (time_grid=edm does)"
                )
        return self._rows(values, times, scales)

    def between(self, interval: Interval, c: float) -> Node:
        """The node at the fraction ``c`` of an interval, counted from its start."""
        return self.all_between([interval], c)[0]

    def all_between(self, intervals: Sequence[Interval], c: float) -> list[Node]:
        """The nodes at the fraction ``c`` of each interval, counted from its start."""
        if c == 0.0:
            return [interval.start for interval in intervals]
        if c == 1.0:
            return [interval.end for interval in intervals]
        return self.nodes_of([i.start.u + c * i.length for i in intervals])

    def node(self, u: float) -> Node:
        """The node at one value of the variable."""
        return self.nodes_of([u])[0]

    def nodes_of(self, values: Sequence[float]) -> list[Node]:
        """The nodes at values of the variable."""
        u = torch.tensor(values, dtype=torch.float64)
        times = self.variable.time(self.schedule, u)
        return self._rows(values, times, self.variable.scale(self.schedule, times))

    def _rows(self, values: Sequence[float], times: Tensor, scales: Tensor) -> list[Node]:
        on_device = times.to(self.device)
        rows = zip(
            values,
            times.tolist(),
            on_device.unbind(),
            scales.tolist(),
            self.model.at(on_device),
            strict=True,
        )
        return [Node(*row) for row in rows]

    def enter(self, x: Tensor, node: Node) -> Tensor:
        """``z = x_t / scale``."""
        return x if node.scale == 1.0 else x / node.scale

    def leave(self, z: Tensor, node: Node) -> Tensor:
        """``x_t = scale z``."""
        return z if node.scale == 1.0 else z * node.scale

    def levels(self, nodes: Sequence[Node]) -> list[tuple[float, float]]:
        """``(alpha, sigma)`` at each node."""
        times = torch.tensor([node.time for node in nodes], dtype=torch.float64)
        c = self.schedule.coefficients(times)
        return list(zip(c.alpha.tolist(), c.sigma.tolist(), strict=True))
