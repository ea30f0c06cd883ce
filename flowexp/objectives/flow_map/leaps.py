"""Shared by the parts of a flow map's objective: the rows of a batch, and target networks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.networks.base import without_labels
from flowexp.parameterizations import Conditions, rows_of
from flowexp.paths import Schedule
from flowexp.requirements import Part

__all__ = ["Draws", "EMATarget", "OnlineTarget", "Leap", "Target", "gradients", "partition"]


@dataclass(frozen=True)
class Draws:
    """The times and random numbers of some rows.

    Attributes:
        t: Start times, (B,), float64.
        r: End times, (B,), r <= t; 0 if only t is drawn.
        s: The third time, (B,), if the time distribution draws one: the end of the first leg,
            r <= s < t; in terminal velocity matching the time of a flow-matching row.
        uniforms: Uniform numbers in (0, 1) for each part of the objective, by its argument's name:
            (B, k), float64, where k is the part's ``uniforms``.
    """

    t: Tensor
    r: Tensor
    s: Tensor | None
    uniforms: Mapping[str, Tensor]


@dataclass(frozen=True)
class Leap(Draws):
    """The rows of a batch: for each, the step from (x_t, t) to r.

    Attributes:
        x: Data, (B, ...), float64 like all states here.
        e: Samples of the source.
        x_t: States at t.
        velocity: Velocity ``alpha' x + sigma' e`` of the pairs at t.
        schedule: Schedule of the path.
        conditions: Conditions of the rows.
        dropped: Rows whose label or caption was dropped, (B,) bool; None = the objective drops
            none.
        given: Conditions of the rows before labels were dropped; empty = as ``conditions``.
        images_seen: Training images before this batch.
        output_scale: :meth:`flowexp.models.Model.output_scale` at t and r, (B,); None unless the
            error weight uses it.
        whole: Draws of all rows of the batch of which these are a part (a micro-batch or the share
            of a process), (N,); None = these are all rows.
        positions: Positions of the rows in ``whole``, (B,), int64; None without it.
    """

    x: Tensor
    e: Tensor
    x_t: Tensor
    velocity: Tensor
    schedule: Schedule
    conditions: Conditions
    dropped: Tensor | None = None
    images_seen: int = 0
    given: Conditions = field(default_factory=dict)
    output_scale: Tensor | None = None
    whole: Draws | None = None
    positions: Tensor | None = None

    def over_batch(self, of: Callable[[Draws], Tensor]) -> Tensor:
        """The values of these rows, (B,), of a function of all rows of the batch.

        They do not depend on how the batch is divided into micro-batches and shares of processes.
        """
        if self.whole is None or self.positions is None:
            return of(self)
        return of(self.whole)[self.positions]

    def with_conditions(self, conditions: Conditions) -> "Leap":
        """The same rows with other conditions."""
        return replace(self, conditions=conditions, given={})

    def labelled(self) -> "Leap":
        """The same rows with their labels as before any was dropped."""
        return self.with_conditions(self.given or self.conditions)

    def unlabelled(self) -> "Leap":
        """The same rows without labels, and with guidance scale 1."""
        conditions = without_labels(self.conditions)
        scale = conditions.get("guidance_scale")
        if scale is not None:
            conditions["guidance_scale"] = torch.ones_like(scale)
        return self.with_conditions(conditions)

    def instant(self) -> "Leap":
        """The same rows with r = t: their scale where t is in the interval, 1 elsewhere."""
        conditions = dict(self.conditions)
        scale, start = conditions.get("guidance_scale"), conditions.get("guidance_start")
        end = conditions.get("guidance_end")
        if scale is not None and start is not None and end is not None:
            inside = (self.t >= start) & (self.t <= end)
            conditions["guidance_scale"] = torch.where(inside, scale, 1.0)
            conditions["guidance_start"] = torch.zeros_like(start)
            conditions["guidance_end"] = torch.ones_like(end)
        return replace(self, r=self.t, conditions=conditions)

    def rows(self, chosen: Tensor) -> "Leap":
        """The rows of these indices."""
        conditions, given = (rows_of(c, chosen) for c in (self.conditions, self.given))
        uniforms = {name: u[chosen] for name, u in self.uniforms.items()}
        return replace(
            self,
            x=self.x[chosen],
            e=self.e[chosen],
            x_t=self.x_t[chosen],
            velocity=self.velocity[chosen],
            t=self.t[chosen],
            r=self.r[chosen],
            s=None if self.s is None else self.s[chosen],
            conditions=conditions,
            uniforms=uniforms,
            dropped=None if self.dropped is None else self.dropped[chosen],
            given=given,
            output_scale=None if self.output_scale is None else self.output_scale[chosen],
            positions=None if self.positions is None else self.positions[chosen],
        )


def partition(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The indices of the chosen rows, (B,) bool, and of the others, both in their order.

    It waits for the device once, where indexing by booleans waits for every tensor.
    """
    order = torch.argsort(chosen.to(torch.uint8), stable=True)
    others = len(chosen) - int(chosen.sum())
    return order[others:], order[:others]


class Target(Part, ABC):
    """The network whose predictions make up the target (target network).

    Attributes:
        averages: Names of the averages of the weights that it needs.
        gradient: Whether the gradient flows through these predictions; almost always False.
    """

    averages: tuple[str, ...] = ()
    gradient: bool = False

    @abstractmethod
    def of(self, model: Model) -> Model:
        """The model that makes the predictions, given the ``model`` in training."""


class OnlineTarget(Target):
    """The network in training (online network).

    Args:
        gradient: Whether the gradient flows through the target (no stop-gradient).
    """

    def __init__(self, *, gradient: bool = False) -> None:
        self.gradient = gradient

    def of(self, model: Model) -> Model:
        return model


class EMATarget(Target):
    """An average of the network's weights (EMA).

    Args:
        name: Its name in the config group ``ema``.
    """

    def __init__(self, *, name: str = "main") -> None:
        self.name = name
        self.averages = (name,)

    def of(self, model: Model) -> Model:
        return model.average(self.name)


class _Predictor(Protocol):
    @property
    def gradient(self) -> bool:
        """Whether its predictions have a gradient."""


def gradients(of: _Predictor) -> AbstractContextManager[object]:
    """A context that stops gradients unless the target, driver or pair of legs has one."""
    return nullcontext() if of.gradient else torch.no_grad()
