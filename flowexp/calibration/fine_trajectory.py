"""Trajectories of a model in many small steps, kept whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from flowexp.calibration.base import Subject
from flowexp.models import Model
from flowexp.paths import Prediction
from flowexp.samplers import Field, Node, TimeGrid, Variable

__all__ = ["FineTrajectory", "fine_times"]


def fine_times(grid: TimeGrid, model: Model, steps: int) -> Tensor:
    """The times of a grid, checked against the model's range."""
    times = grid.times(model, steps)
    low, high = model.time_range
    if float(times[0]) > high * (1 + 1e-12) or float(times[-2]) < low * (1 - 1e-12):
        raise ValueError(f"{grid!r} leaves the range of the model, {low} to {high}")
    return times


@dataclass(frozen=True, eq=False)
class FineTrajectory:
    """Euler states of a batch at all times of a grid, and the velocities that led to them.

    Attributes:
        field: Model, variable and conditions.
        nodes: The grid, P points from the source end to the data end.
        states: (P, B, ...), float64, in the variable's scaling.
        predictions: The model's predictions at all points but the last.
    """

    field: Field
    nodes: Sequence[Node]
    states: Tensor
    predictions: Sequence[Prediction]

    @classmethod
    def of_seeds(
        cls, subject: Subject, seeds: Sequence[int], times: Tensor, *, variable: Variable
    ) -> "FineTrajectory":
        """:meth:`simulate` from the source draws of these seeds, as the model is sampled."""
        start = subject.pipeline.start(seeds)
        return cls.simulate(
            subject.guided, start.e, times, variable=variable, conditions=start.conditions
        )

    @classmethod
    @torch.inference_mode()
    def simulate(
        cls,
        model: Model,
        e: Tensor,
        times: Tensor,
        *,
        variable: Variable,
        conditions: Mapping[str, Tensor | None],
    ) -> "FineTrajectory":
        """Walk a grid, (P,) decreasing float64 times, from ``sigma(t_0) e`` with Euler's method."""
        field = Field(model, variable=variable, conditions=conditions, device=e.device)
        nodes = field.nodes(times)
        z = field.enter(model.path.start(e.to(torch.float64), nodes[0].t), nodes[0])
        states, predictions = [z], []
        for a, b in pairwise(nodes):
            predictions.append(field.predict(z, a))
            z = torch.add(z, variable.slope(predictions[-1]), alpha=b.u - a.u)
            states.append(z)
        return cls(field, nodes, torch.stack(states), predictions)

    def known_node(self, j: int) -> Node:
        """Node j with the prediction at state j, which saves a step from there one call."""
        prediction = self.predictions[j]
        return replace(self.nodes[j], evaluate=lambda x_t, **conditions: prediction)
