"""Legs that regress a derivative of the flow map: LSD, ESD and methods built on them.

With ``X_{t->r}(x) = x - (t - r) u(x, t, r)``, exact flow maps satisfy

- Lagrange's equation ``d/dr X = v(X, r)``, where ``d/dr X = u - (t - r) du/dr``;
- Euler's equation ``-d/dt X = grad X . v(x, t)``, where ``-d/dt X = u + (t - r) du/dt`` and
  ``grad X . v = v - (t - r) grad u . v``.

All four sides are velocities; at r = t they reduce to u(x, t, t) and v, that is to flow matching.
"""

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.objectives.flow_map.derivatives import JVP, Derivative
from flowexp.objectives.flow_map.leaps import Leap, gradients, partition
from flowexp.objectives.flow_map.legs import Comparison, Leg, Legs
from flowexp.requirements import Parts, Unmet, on_any_end

__all__ = ["DerivativeLeg", "Eulerian", "Lagrangian"]


class DerivativeLeg(Leg):
    """A leg whose prediction, with gradient, is a derivative of the flow map in one of its times.

    Args:
        derivative: How it is computed; None = forward mode (JVP).
        through_derivative: Whether the gradient flows through ``du/dr`` or ``du/dt`` and not only
            through u.
    """

    derivative: Derivative
    compares_head = False

    def __init__(
        self, *, derivative: Derivative | None = None, through_derivative: bool = True
    ) -> None:
        self.derivative = derivative or JVP()
        self.through_derivative = through_derivative

    def compare(self, model: Model, leap: Leap, legs: Legs) -> Comparison:
        apart, equal = partition(leap.r < leap.t)
        if len(equal) == 0:
            return self.apart(model, leap, legs)
        if len(apart) == 0:
            return super().compare(model, leap, legs)
        far = self.apart(model, leap.rows(apart), legs)
        near = super().compare(model, leap.rows(equal), legs)

        def merged(of_far: Tensor, of_near: Tensor) -> Tensor:
            rows = of_far.new_empty((len(leap.t), *of_far.shape[1:]))
            rows[apart], rows[equal] = of_far, of_near.to(rows.dtype)
            return rows

        return Comparison(
            prediction=merged(far.prediction, near.prediction),
            target=merged(far.target, near.target),
            share=merged(far.share, near.share),
        )

    def apart(self, model: Model, leap: Leap, legs: Legs) -> Comparison:
        """Prediction and target of rows with r < t."""
        u, slope = self.slope(model, leap)
        if not self.through_derivative:
            slope = slope.detach()
        with gradients(legs):
            target, share = self.target(model, leap, legs, u)
        return Comparison(u + expand_as(leap.t - leap.r, slope) * slope, target, share)

    @abstractmethod
    def slope(self, model: Model, leap: Leap) -> tuple[Tensor, Tensor]:
        """u, and its derivative in the direction that makes ``u + (t - r) du`` the prediction."""


class Lagrangian(DerivativeLeg):
    """``d/dr X_{t->r}(x_t)`` against ``v(X_{t->r}(x_t), r)``: LSD, and the first term of TVM.

    v is the target network's velocity u(X, r, r). The driver is used in rows with r = t only. The
    cost is one derivative in a scalar and one call of the target network; no spatial Jacobian.

    Source: Boffi et al., 2025, arXiv 2505.18825 (LSD); Zhou et al., Terminal velocity matching,
    2025, arXiv 2511.19797 (u of an average of the weights).
    """

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A flow map that ends at any r."""
        yield from on_any_end(parts, name=type(self).__name__)

    def slope(self, model: Model, leap: Leap) -> tuple[Tensor, Tensor]:
        def u(r: Tensor) -> Tensor:
            return model.average_velocity(leap.x_t, leap.t, r, **leap.conditions)

        room = leap.t - leap.r, leap.r
        return self.derivative.along(u, (leap.r,), (-torch.ones_like(leap.r),), room=room)

    def target(
        self, model: Model, leap: Leap, legs: Legs, prediction: Tensor
    ) -> tuple[Tensor, Tensor]:
        with gradients(legs.target):
            end = leap.x_t - expand_as(leap.t - leap.r, prediction) * prediction
            target_model = legs.target.of(model)
            velocity = target_model.average_velocity(end, leap.r, leap.r, **leap.conditions)
        return velocity, torch.ones_like(leap.t)


class Eulerian(DerivativeLeg):
    """``-d/dt X_{t->r}(x_t)`` against ``grad X_{t->r}(x_t) . v(x_t, t)``: ESD.

    v is the driver's velocity. The spatial derivative is that of the target network, with a
    stop-gradient unless the target has a gradient. In the terms of the authors' code, ``full``
    stops all gradients of the target, ``convex`` those of the driver, and ``none`` none.

    Source: Boffi et al., 2025, arXiv 2505.18825 (ESD).
    """

    def slope(self, model: Model, leap: Leap) -> tuple[Tensor, Tensor]:
        def u(t: Tensor) -> Tensor:
            return model.average_velocity(leap.x_t, t, leap.r, **leap.conditions)

        room = leap.t - leap.r, (model.time_range[1] - leap.t).clamp(min=0.0)
        return self.derivative.along(u, (leap.t,), (torch.ones_like(leap.t),), room=room)

    def target(
        self, model: Model, leap: Leap, legs: Legs, prediction: Tensor
    ) -> tuple[Tensor, Tensor]:
        d = legs.drive(model, leap, leap.t).to(leap.x_t.dtype)
        target_model = legs.target.of(model)

        def u(x: Tensor) -> Tensor:
            return target_model.average_velocity(x, leap.t, leap.r, **leap.conditions)

        with gradients(legs.target):
            slope = self.derivative.slope(u, (leap.x_t,), (d,))
        return d - expand_as(leap.t - leap.r, slope) * slope, torch.ones_like(leap.t)
