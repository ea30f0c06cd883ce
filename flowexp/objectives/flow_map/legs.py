"""Legs: the length of the first leg, and from it the target of the average velocity.

With the first leg of relative length a, from t to ``s = t - a (t - r)`` along a driver d,
``u_tgt = a d + (1 - a) u(x_s, s, r)`` with ``x_s = x_t - (t - s) d``. For a -> 0, the residual
``(u_tgt - u)/a`` tends to ``d - u - (t - r) du/dt``, where du/dt is the derivative along (d, 1, 0)
in (x, t, r).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.objectives.flow_map.derivatives import JVP, Derivative
from flowexp.objectives.flow_map.drivers import Driver
from flowexp.objectives.flow_map.leaps import Draws, Leap, Target, gradients, partition
from flowexp.requirements import Part, Parts, Unmet, within

__all__ = [
    "Comparison",
    "FiniteLeg",
    "FixedShare",
    "GivenMiddle",
    "Leg",
    "Legs",
    "RandomShare",
    "Tangent",
    "checked_clamp",
]


@dataclass(frozen=True)
class Legs:
    """The sources of a target: driver, target network, and the velocity for rows with r = t.

    Attributes:
        driver: Velocity of the first leg.
        target: Network that predicts the second leg.
        diagonal: Velocity that rows with r = t are regressed on.
        head: Whether the velocity head's prediction is compared too.
    """

    driver: Driver
    target: Target
    diagonal: Driver
    head: bool = False

    @property
    def gradient(self) -> bool:
        """Whether the gradient flows through any part of the target."""
        return self.driver.gradient or self.target.gradient

    def drive(self, model: Model, leap: Leap, s: Tensor) -> Tensor:
        """The driver's velocity, (B, ...); its gradient is stopped unless the driver has one."""
        with gradients(self.driver):
            return self.driver.velocity(model, leap, s)


@dataclass(frozen=True)
class Comparison:
    """Predictions and targets of an objective, per row.

    Attributes:
        prediction: Average velocity, (B, ...), with gradient.
        target: Its target, (B, ...); without gradient unless :class:`Legs` has one.
        share: Relative length a of the first leg, (B,), float64; 1 where r = t, and 1 for
            derivatives, whose residual is already the limit a -> 0.
        head: Prediction of the velocity head, with gradient; None unless it is compared.
    """

    prediction: Tensor
    target: Tensor
    share: Tensor
    head: Tensor | None = None


class Leg(Part, ABC):
    """How the target of a row is computed.

    Attributes:
        columns: Names of the times per sample that it needs.
        uniforms: Number of uniform random numbers per sample that it needs.
        averages: Names of the averages of the weights that it needs.
        derivative: How it differentiates the model; None = not at all.
        compares_head: Whether it compares the prediction of a velocity head, if there is one.
        suits: The parameterization suggested to a user whose own is not a flow map.
        laws: The options of ``timestep`` suggested to a user whose own draws other times.
    """

    columns: tuple[str, ...] = ("t", "r")
    uniforms: int = 0
    averages: tuple[str, ...] = ()
    derivative: Derivative | None = None
    compares_head: bool = True
    suits: str = "average_velocity"
    laws: tuple[str, ...] = ("sorted", "meanflow", "soflow")

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """The requirements of its derivative."""
        if self.derivative is not None:
            yield from within("derivative", self.derivative.needs(parts))

    def may_drop_label(self, rows: Draws) -> Tensor:
        """Rows that may drop their label, (B,) bool: all, unless overridden."""
        return torch.ones_like(rows.t, dtype=torch.bool)

    def compare(self, model: Model, leap: Leap, legs: Legs) -> Comparison:
        """Predictions and targets of all rows; for r = t the target is the diagonal's velocity."""
        head = None
        if legs.head:
            prediction, head = model.with_velocity_head(leap.x_t, leap.t, leap.r, **leap.conditions)
        else:
            prediction = model.average_velocity(leap.x_t, leap.t, leap.r, **leap.conditions)
        with gradients(legs):
            target, share = self.targets(model, leap, legs, prediction.detach())
        return Comparison(prediction, target, share, head)

    def targets(
        self, model: Model, leap: Leap, legs: Legs, prediction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Targets (B, ...) and shares (B,) of all rows; ``prediction`` is u(x_t, t, r)."""
        equal, apart = partition(self.on_diagonal(leap))
        if len(equal) == 0:
            return self.target(model, leap, legs, prediction)
        share = torch.ones_like(leap.t)
        target = torch.empty_like(prediction)
        rows = leap.rows(equal)
        target[equal] = legs.diagonal.velocity(model, rows, rows.t).to(target.dtype)
        if len(apart) > 0:
            found, share[apart] = self.target(model, leap.rows(apart), legs, prediction[apart])
            target[apart] = found.to(target.dtype)
        return target, share

    def on_diagonal(self, rows: Draws) -> Tensor:
        """Rows whose target is the diagonal's velocity, (B,) bool: those with r = t."""
        return rows.r >= rows.t

    @abstractmethod
    def target(
        self, model: Model, leap: Leap, legs: Legs, prediction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Targets (B, ...) and shares (B,) of the rows that are not on the diagonal."""


class FiniteLeg(Leg):
    """A first leg that ends at a time s.

    Attributes:
        clamp: Targets are clamped to [-clamp, clamp]; None = not clamped.
    """

    clamp: float | None = None

    @abstractmethod
    def end(self, leap: Leap) -> Tensor:
        """s, (B,), float64, r <= s < t."""

    def is_whole(self, leap: Leap) -> bool:
        """Whether s = r in all rows, so that the second leg needs no evaluation."""
        return False

    def bounded(self, x_s: Tensor) -> Tensor:
        """The state from which the second leg starts; unchanged unless overridden."""
        return x_s

    def target(
        self, model: Model, leap: Leap, legs: Legs, prediction: Tensor
    ) -> tuple[Tensor, Tensor]:
        s = self.end(leap)
        d = legs.drive(model, leap, s)
        if self.is_whole(leap):
            return self.clamped(d), torch.ones_like(leap.t)
        share = (leap.t - s) / (leap.t - leap.r)
        # With s = r the second leg is empty, and u(x_r, r, r) may be undefined. Such rows are
        # evaluated at t only to keep the batch shape; the result is not used.
        start = torch.where(share < 1.0, s, leap.t)
        x_s = self.bounded(leap.x_t - expand_as(leap.t - start, d) * d)
        with gradients(legs.target):
            rest = legs.target.of(model).average_velocity(x_s, start, leap.r, **leap.conditions)
        mixed = torch.lerp(rest, d.to(rest.dtype), expand_as(share, rest))
        target = torch.where(expand_as(share, rest) >= 1.0, d, mixed)
        return self.clamped(target), share

    def clamped(self, x: Tensor) -> Tensor:
        """A state or target within the bounds, if there are any."""
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


def checked_clamp(clamp: float | None) -> float | None:
    """The argument ``clamp`` of a finite leg, which must be positive."""
    if clamp is not None and not clamp > 0.0:
        raise ValueError(f"clamp is {clamp}; expected a positive number or null")
    return None if clamp is None else float(clamp)


class FixedShare(FiniteLeg):
    """A fixed ``a``: 1/2 in Shortcut models and PSD-M, 1 in trajectory flow matching.

    Args:
        share: a, in (0, 1].
    """

    def __init__(self, *, share: float = 0.5) -> None:
        if not 0.0 < share <= 1.0:
            raise ValueError(f"share is {share}; expected a number in (0, 1]")
        self.share = float(share)

    def is_whole(self, leap: Leap) -> bool:
        return self.share == 1.0

    def end(self, leap: Leap) -> Tensor:
        return leap.t - self.share * (leap.t - leap.r)


class RandomShare(FiniteLeg):
    """``a ~ U(0, 1)`` for every row: interval splitting.

    Source: Guo et al., SplitMeanFlow, 2025, arXiv 2507.16884; Boffi et al., 2025, arXiv 2505.18825
    (PSD-U).
    """

    uniforms = 1

    def end(self, leap: Leap) -> Tensor:
        return leap.t - leap.uniforms["leg"][:, 0] * (leap.t - leap.r)


class GivenMiddle(FiniteLeg):
    """s is drawn together with t and r, as in consistency models."""

    columns = ("t", "r", "s")
    laws = ("ect", "tcm", "ict", "noise_grid")

    def end(self, leap: Leap) -> Tensor:
        assert leap.s is not None
        return leap.s


class Tangent(Leg):
    """``a -> 0``: the target ``d - (t - r) du/dt``, MeanFlow's identity.

    Args:
        derivative: How du/dt is computed; None = forward mode (JVP).
        direction: The velocity v of the tangent (v, 1, 0) in (x, t, r); None = the driver's, d. The
            data velocity makes the target depend on the pair and not only on x_t; improved MeanFlow
            uses the prediction of its velocity head.

    Source: Geng et al., MeanFlow, 2025, arXiv 2505.13447, eq. 6 and 11; improved MeanFlow, 2025,
    arXiv 2512.02012 (direction), whose loss ``|u + (t - r) sg[du/dt] - d|^2`` is the same.
    """

    derivative: Derivative

    def __init__(
        self, *, derivative: Derivative | None = None, direction: Driver | None = None
    ) -> None:
        self.derivative = derivative or JVP()
        self.direction = direction
        self.averages = () if direction is None else direction.averages

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """The requirements of derivative and direction."""
        yield from super().needs(parts)
        if self.direction is not None:
            yield from within("direction", self.direction.needs(parts))

    def target(
        self, model: Model, leap: Leap, legs: Legs, prediction: Tensor
    ) -> tuple[Tensor, Tensor]:
        d = legs.drive(model, leap, leap.t).to(leap.x_t.dtype)
        along = d
        if self.direction is not None:
            along = self.direction.velocity(model, leap, leap.t).to(leap.x_t.dtype)
        target_model = legs.target.of(model)

        def u(x: Tensor, t: Tensor, r: Tensor) -> Tensor:
            return target_model.average_velocity(x, t, r, **leap.conditions)

        one, zero = torch.ones_like(leap.t), torch.zeros_like(leap.r)
        low, high = target_model.time_range
        room = (leap.t - low).clamp(min=0.0), (high - leap.t).clamp(min=0.0)
        at, direction = (leap.x_t, leap.t, leap.r), (along, one, zero)
        with gradients(legs.target):
            slope = self.derivative.slope(u, at, direction, room=room)
        return d - expand_as(leap.t - leap.r, slope) * slope, torch.ones_like(leap.t)
