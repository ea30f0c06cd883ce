"""The vector field of one sampling call: model, conditions and variable, evaluated at nodes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.models import Evaluation, Model
from flowexp.paths import Prediction, Schedule

__all__ = ["Field", "Interval", "Intervals", "Node", "NoiseToSignal", "States", "Time", "Variable"]


class Variable(ABC):
    """Independent variable ``u(t)``, scaled state ``z = x_t / scale(t)``, and slope ``dz/du``.

    A step of Heun's method in t is not a step of Heun's method in the noise level: on every path
    that is not straight they are different methods, so the variable is a choice of its own.
    """

    @abstractmethod
    def value(self, schedule: Schedule, t: Tensor) -> Tensor:
        """``u(t)``, float64, of the shape of t; increasing."""

    @abstractmethod
    def time(self, schedule: Schedule, u: Tensor) -> Tensor:
        """``t(u)``: inverse of :meth:`value`."""

    @abstractmethod
    def scale(self, schedule: Schedule, t: Tensor) -> Tensor:
        """Factor with ``x_t = scale z``, float64, of the shape of t."""

    @abstractmethod
    def slope(self, prediction: Prediction) -> Tensor:
        """``dz/du`` where the prediction was made."""


class Time(Variable):
    """``u = t``, ``z = x_t``, ``dz/du = v``: the path's own time."""

    def value(self, schedule: Schedule, t: Tensor) -> Tensor:
        return t

    def time(self, schedule: Schedule, u: Tensor) -> Tensor:
        return u

    def scale(self, schedule: Schedule, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def slope(self, prediction: Prediction) -> Tensor:
        return prediction.velocity


class NoiseToSignal(Variable):
    """``u = sigma / alpha``, ``z = x_t / alpha``, ``dz/du = e``: EDM's variable, on any path.

    All paths with the same source have the same trajectories in it, and its slope needs no time
    derivative; Euler in it is DDIM. It is infinite where alpha is 0.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, eq. 4 with s(t) = 1; Song et al., DDIM,
    2020, arXiv 2010.02502, eq. 14.
    """

    def value(self, schedule: Schedule, t: Tensor) -> Tensor:
        return schedule.nsr(t)

    def time(self, schedule: Schedule, u: Tensor) -> Tensor:
        return schedule.time_at_nsr(u)

    def scale(self, schedule: Schedule, t: Tensor) -> Tensor:
        return schedule.coefficients(t).alpha

    def slope(self, prediction: Prediction) -> Tensor:
        return prediction.noise


@dataclass(frozen=True, slots=True)
class Node:
    """A point of the independent variable.

    Attributes:
        u: Value of the variable.
        time, t: The path's time there; t as a float64 scalar tensor on the state's device.
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
    """Step ``index`` of ``count``; ``end.u < start.u``, or empty: it ends where it starts."""

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


Intervals = Sequence[Interval]
"""The steps of a walk, one after the other."""

States = Iterator[Tensor]
"""The states at the ends of a walk's intervals, one after the other."""


class Field:
    """``dz/du`` of a model under fixed conditions, for states on a device."""

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
        """The nodes at float64 times on the CPU; a ValueError where the variable is infinite."""
        values = self.variable.value(self.schedule, times).tolist()
        for u, time in zip(values, times.tolist(), strict=True):
            if not math.isfinite(u):
                raise ValueError(
                    f"the variable {type(self.variable).__name__} is {u} at t={time} of "
                    f"{self.schedule!r}; start the time grid below it (time_grid=edm does)"
                )
        return self._rows(values, times)

    def nodes_of(self, values: Sequence[float]) -> list[Node]:
        """The nodes at values of the variable."""
        u = torch.tensor(values, dtype=torch.float64)
        return self._rows(values, self.variable.time(self.schedule, u))

    def all_between(self, intervals: Intervals, c: float) -> list[Node]:
        """The nodes at the fraction ``c`` of each interval, counted from its start."""
        if c == 0.0:
            return [interval.start for interval in intervals]
        if c == 1.0:
            return [interval.end for interval in intervals]
        return self.nodes_of([i.start.u + c * i.length for i in intervals])

    def _rows(self, values: Sequence[float], times: Tensor) -> list[Node]:
        on_device = times.to(self.device)
        scales = self.variable.scale(self.schedule, times).tolist()
        evaluations = self.model.at(on_device)
        rows = zip(values, times.tolist(), on_device.unbind(), scales, evaluations, strict=True)
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
