"""Continuous-time consistency models (sCM): the tangent of f in TrigFlow's coordinates."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.objectives.flow_map.derivatives import JVP, Derivative
from flowexp.objectives.flow_map.leaps import Leap
from flowexp.objectives.flow_map.legs import Comparison, Leg, Legs
from flowexp.objectives.flow_map.regressions import Regressed
from flowexp.parameterizations import QuarterCircle
from flowexp.requirements import Part

__all__ = ["Clipped", "Normalized", "TangentLimit", "TrigFlowOutput", "TrigFlowTangent"]


class TangentLimit(Part, ABC):
    """Limits the size of a tangent."""

    @abstractmethod
    def __call__(self, g: Tensor) -> Tensor:
        """The limited tangent, (B, ...), that replaces ``g``."""


class Normalized(TangentLimit):
    """``g / (|g| / sqrt(N) + c)``: a root mean square below 1 for every sample.

    Args:
        c: Keeps small tangents small, > 0.
        per_dimension: Whether the norm is divided by sqrt(N), with N dimensions; otherwise the
            result is ``g / (|g| + c)``.

    Raises:
        ValueError: c is not positive.

    Source: Lu & Song, sCM, 2024, arXiv 2410.11081, section 4.2 (c = 0.1); NVIDIA's FastGen,
    ``tangent_warmup_const`` and ``g_norm_spatial_invariance``.
    """

    def __init__(self, *, c: float = 0.1, per_dimension: bool = True) -> None:
        if not c > 0.0:
            raise ValueError(f"c is {c}; expected a positive number")
        self.c = float(c)
        self.per_dimension = per_dimension

    def __call__(self, g: Tensor) -> Tensor:
        rows = g.flatten(1)
        norm = torch.linalg.vector_norm(rows, dim=1)
        if self.per_dimension:
            norm = norm / math.sqrt(rows.shape[1])
        return g / expand_as(norm + self.c, g)


class Clipped(TangentLimit):
    """Every element clipped to ``[-bound, bound]``.

    Args:
        bound: Largest absolute value, > 0.

    Raises:
        ValueError: bound is not positive.

    Source: Lu & Song, sCM, 2024, arXiv 2410.11081, section 4.2 (bound = 1).
    """

    def __init__(self, *, bound: float = 1.0) -> None:
        if not bound > 0.0:
            raise ValueError(f"bound is {bound}; expected a positive number")
        self.bound = float(bound)

    def __call__(self, g: Tensor) -> Tensor:
        return g.clamp(-self.bound, self.bound)


class TrigFlowTangent(Leg):
    """``a -> 0`` and ``r = 0`` in TrigFlow's coordinates: F is regressed on ``sg F + limit(g)``.

    The consistency function f(x_t, t), the end of the flow map at r = 0, corresponds to the
    TrigFlow output ``F = (cos x_theta - f) / (sd sin)``; combine this leg with
    :class:`TrigFlowOutput`. The tangent is

    ``g = -cos^2 (sd F - dx_theta/dtheta) - r_w (cos sin x_theta + sd DF)``,

    which for ``r_w = 1`` is ``cos df/dtheta`` along the driver's trajectory, and for ``r_w = 0``
    the direction of flow matching. DF is the derivative of F along ``cos sin (dx_theta/dtheta, 1)``
    in (x_theta, theta); having ``cos sin`` in the direction avoids products of large and small
    numbers. In the path's own variables the direction is ``(alpha sigma / W) (v, 1)``, a unit step
    of ``ln(sigma/alpha)``, with the driver's velocity v. A finite difference of step h
    (``derivative=difference``) therefore changes the noise level by the factor ``e^h``. Published
    recipes use one dropout mask for F and DF (``same_dropout``).

    Args:
        limit: Limits the size of the tangent; None = :class:`Normalized`.
        derivative: How DF is computed; None = forward mode (JVP).
        sigma_data: sd, the standard deviation of the data, > 0.
        warmup_kimg: Tangent warm-up ``r_w = min(1, kimg / warmup_kimg)``, >= 0; 0 = none.

    Raises:
        ValueError: sigma_data or warmup_kimg is out of range.

    Source: Lu & Song, sCM, 2024, arXiv 2410.11081, eq. 6 and algorithm 1; NVIDIA's FastGen,
    ``sCM.py``.
    """

    derivative: Derivative
    columns = ("t",)
    suits = "trigflow_consistency"
    laws = ("lognormal",)

    def __init__(
        self,
        *,
        limit: TangentLimit | None = None,
        derivative: Derivative | None = None,
        sigma_data: float = 0.5,
        warmup_kimg: float = 0.0,
    ) -> None:
        if not sigma_data > 0.0:
            raise ValueError(f"sigma_data is {sigma_data}; expected a positive number")
        if not warmup_kimg >= 0.0:
            raise ValueError(f"warmup_kimg is {warmup_kimg}; expected a number >= 0")
        self.limit = limit or Normalized()
        self.derivative = derivative or JVP()
        self.sigma_data = float(sigma_data)
        self.warmup_kimg = float(warmup_kimg)

    def target(
        self, model: Model, leap: Leap, legs: Legs, prediction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The average velocity whose F is ``sg F + limit(g)``."""
        g = self.limit(self.tangent(model, leap, legs))
        slope = _slope_of_output(leap, self.sigma_data)
        return prediction + g / expand_as(slope, g), torch.ones_like(leap.t)

    def tangent(self, model: Model, leap: Leap, legs: Legs) -> Tensor:
        """The tangent g before the limit, (B, ...)."""
        target_model = legs.target.of(model)

        def output(x_t: Tensor, t: Tensor) -> Tensor:
            data = target_model.flow_map(x_t, t, torch.zeros_like(t), **leap.conditions)
            return _circle(leap, t, self.sigma_data).output(x_t, data)

        circle = _circle(leap, leap.t, self.sigma_data)
        v = legs.drive(model, leap, leap.t).to(leap.x_t.dtype)
        step = circle.c.alpha * circle.c.sigma / circle.c.wronskian
        direction = expand_as(step, v) * v, step
        F, slope = self.derivative.along(output, (leap.x_t, leap.t), direction)
        cos, sin = expand_as(circle.cos, F), expand_as(circle.sin, F)
        along_driver = self.sigma_data * F - circle.velocity(leap.x_t, v)
        change = cos * sin * circle.state(leap.x_t) + self.sigma_data * slope
        return -(cos**2) * along_driver - self.share(leap.images_seen) * change

    def share(self, images_seen: int) -> float:
        """``r_w`` after so many images."""
        if self.warmup_kimg == 0.0:
            return 1.0
        return min(1.0, images_seen / (1000.0 * self.warmup_kimg))


class TrigFlowOutput(Regressed):
    """``F - F_tgt = t/(sd sin) (u - u_tgt)``, for flow maps to r = 0: TrigFlow's network output.

    Args:
        sigma_data: sd, the standard deviation of the data, > 0.
    """

    def __init__(self, *, sigma_data: float = 0.5) -> None:
        if not sigma_data > 0.0:
            raise ValueError(f"sigma_data is {sigma_data}; expected a positive number")
        self.sigma_data = float(sigma_data)

    def difference(self, comparison: Comparison, leap: Leap) -> Tensor:
        difference = comparison.prediction - comparison.target
        return expand_as(_slope_of_output(leap, self.sigma_data), difference) * difference


def _circle(leap: Leap, t: Tensor, sigma_data: float) -> QuarterCircle:
    return QuarterCircle(leap.schedule.coefficients(t), sigma_data)


def _slope_of_output(leap: Leap, sigma_data: float) -> Tensor:
    """``dF/du`` of ``F = (cos x_theta - x_t + t u) / (sd sin)``."""
    return leap.t / (sigma_data * _circle(leap, leap.t, sigma_data).sin)
