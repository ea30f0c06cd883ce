"""What the parts of a flow map's objective share: the rows of a batch, and whose predictions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.networks.base import without_labels
from flowexp.parameterizations import Conditions
from flowexp.paths import Schedule
from flowexp.requirements import Part

__all__ = ["Average", "Itself", "Leap", "Target", "gradients", "partition"]


@dataclass(frozen=True)
class Leap:
    """The way of every row from (x_t, t) to r.

    Attributes:
        x: Data, (B, ...), float64, as all states here.
        e: Source draws.
        x_t: States at t.
        velocity: Velocity ``alpha' x + sigma' e`` of the pair at t.
        t: Where it starts, (B,), float64.
        r: Where it ends, r <= t; 0 where only t is drawn.
        schedule: That of the path.
        middle: A time in between, if the law of the times gives one.
        conditions: Conditions of the rows.
        uniforms: Numbers in (0, 1) for each part of the objective, by its argument's name: (B, k),
            float64, with k as many as the part says it needs.
        dropped: Rows without their label or caption, (B,) bool; None = none was dropped on purpose.
        given: Conditions of the rows before labels were dropped; empty = as ``conditions``.
        images_seen: Images of the training before this batch.
        output_scale: :meth:`flowexp.models.Model.output_scale` of the way, (B,); None = 1.
    """

    x: Tensor
    e: Tensor
    x_t: Tensor
    velocity: Tensor
    t: Tensor
    r: Tensor
    schedule: Schedule
    middle: Tensor | None
    conditions: Conditions
    uniforms: Mapping[str, Tensor]
    dropped: Tensor | None = None
    images_seen: int = 0
    given: Conditions = field(default_factory=dict)
    output_scale: Tensor | None = None

    def with_conditions(self, conditions: Conditions) -> "Leap":
        """The same rows with other conditions."""
        return replace(self, conditions=conditions, given={})

    def labelled(self) -> "Leap":
        """The same rows with all the labels that there are."""
        return self.with_conditions(self.given or self.conditions)

    def unlabelled(self) -> "Leap":
        """The same rows without labels, and so without guidance."""
        conditions = without_labels(self.conditions)
        scale = conditions.get("guidance_scale")
        if scale is not None:
            conditions["guidance_scale"] = torch.ones_like(scale)
        return self.with_conditions(conditions)

    def instant(self) -> "Leap":
        """The same rows as ones with r = t: guided by the scale of t, whatever the interval."""
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
        conditions, given = (
            {k: None if c is None else c[chosen] for k, c in source.items()}
            for source in (self.conditions, self.given)
        )
        uniforms = {name: u[chosen] for name, u in self.uniforms.items()}
        return replace(
            self,
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
            given=given,
            output_scale=None if self.output_scale is None else self.output_scale[chosen],
        )


def partition(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The indices of the chosen rows, (B,) bool, and of the others, both in their order.

    It waits for the device once, where indexing by booleans waits for every tensor.
    """
    order = torch.argsort(chosen.to(torch.uint8), stable=True)
    others = len(chosen) - int(chosen.sum())
    return order[others:], order[:others]


class Target(Part, ABC):
    """Whose predictions make the target.

    Attributes:
        averages: Names of the averages of the weights that it needs.
        gradient: Whether these predictions have a gradient; almost no method wants that.
    """

    averages: tuple[str, ...] = ()
    gradient: bool = False

    @abstractmethod
    def of(self, model: Model) -> Model:
        """The model that is asked, for a ``model`` in training."""


class Itself(Target):
    """The network in training.

    Args:
        gradient: Whether the gradient also flows through the target, without a stop-gradient.
    """

    def __init__(self, *, gradient: bool = False) -> None:
        self.gradient = gradient

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


class _Asked(Protocol):
    @property
    def gradient(self) -> bool:
        """Whether its predictions have a gradient."""


def gradients(asked: _Asked) -> AbstractContextManager[object]:
    """A context without gradients, unless those of a target, driver or pair of legs are wanted."""
    return nullcontext() if asked.gradient else torch.no_grad()
