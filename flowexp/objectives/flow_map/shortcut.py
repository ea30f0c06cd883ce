"""Shortcut models: steps are regressed on two steps of half the length, the shortest on data."""

import torch
from torch import Tensor

from flowexp.models import Model, WrappedModel
from flowexp.networks.base import without_labels
from flowexp.objectives.flow_map.leaps import Draws, OnlineTarget, Target, partition
from flowexp.objectives.flow_map.legs import FixedShare, checked_clamp
from flowexp.parameterizations import rows_of
from flowexp.paths import Prediction

__all__ = ["ShortcutLeg", "GuidedShortest"]


def _shortest(t: Tensor, r: Tensor, steps: int) -> Tensor:
    """Rows with t - r at most ``1/steps``, (B,) bool, robust to rounding."""
    return t - r < 1.5 / steps


class ShortcutLeg(FixedShare):
    """``u(x_t, t, r)`` is regressed on the mean velocity of two steps of half the length.

    Steps have the lengths 1, 1/2, ..., 1/steps. The shortest ones are regressed on the diagonal's
    velocity; the network receives their gap ``1/steps``, not 0. Only they may drop their labels.

    Args:
        steps: Number T of shortest steps, >= 2; that of the time distribution.
        clamp: The state after the first half and the target are clamped to [-clamp, clamp], > 0,
            for latents; None = not clamped.

    Raises:
        ValueError: steps or clamp is out of range.

    Source: Frans et al., One Step Diffusion via Shortcut Models, 2024, arXiv 2410.12557, eq. 5, and
    the authors' code (clamp 4).
    """

    laws = ("dyadic",)

    def __init__(self, *, steps: int = 128, clamp: float | None = None) -> None:
        super().__init__(share=0.5)
        if steps < 2:
            raise ValueError(f"steps is {steps}; expected an integer >= 2")
        self.steps = int(steps)
        self.clamp = checked_clamp(clamp)

    def on_diagonal(self, rows: Draws) -> Tensor:
        """Rows of the shortest step."""
        return _shortest(rows.t, rows.r, self.steps)

    def may_drop_label(self, rows: Draws) -> Tensor:
        return self.on_diagonal(rows)

    def bounded(self, x_s: Tensor) -> Tensor:
        return self.clamped(x_s)


class GuidedShortest(Target):
    """``u_0 + scale (u_c - u_0)`` in the shortest steps; u_0 and u_c are without and with label.

    Guidance thus enters the targets of steps twice as long, and through them all longer ones.

    Args:
        of: The target network that is guided; None = the network in training.
        scale: Guidance scale; 1 = not guided.
        steps: The shortest step has length ``1/steps``; >= 2.

    Raises:
        ValueError: steps is below 2.

    Source: Frans et al., 2024, arXiv 2410.12557, section 4, and the authors' code (1.5 on
    ImageNet).
    """

    def __init__(self, *, of: Target | None = None, scale: float = 1.5, steps: int = 128) -> None:
        if steps < 2:
            raise ValueError(f"steps is {steps}; expected an integer >= 2")
        self.unguided = of or OnlineTarget()
        self.scale = float(scale)
        self.steps = int(steps)
        self.averages = self.unguided.averages

    def of(self, model: Model) -> Model:
        return _GuidedShortest(self.unguided.of(model), self)


class _GuidedShortest(WrappedModel):
    """The model of :class:`GuidedShortest`."""

    def __init__(self, model: Model, target: GuidedShortest) -> None:
        super().__init__(model)
        self.target = target

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        return self.model.predict(x_t, t, **conditions)

    def average_velocity(
        self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None
    ) -> Tensor:
        velocity = self.model.average_velocity(x_t, t, r, **conditions)
        if self.target.scale == 1.0:
            return velocity
        rows, _ = partition(_shortest(t, r, self.target.steps))
        if len(rows) == 0:
            return velocity
        given = rows_of(conditions, rows)
        unlabelled = self.model.average_velocity(
            x_t[rows], t[rows], r[rows], **without_labels(given)
        )
        guided = velocity.clone()
        guided[rows] = torch.lerp(unlabelled, velocity[rows], self.target.scale)
        return guided
