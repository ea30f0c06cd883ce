"""The adaptive Dormand-Prince 5(4) integrator, with a step size per row or one for the batch."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.parameterizations import rows_of
from flowexp.paths import Prediction

__all__ = ["IntegrationError", "Predict", "Slope", "StepControl", "TorchdiffeqControl", "integrate",
           "predictions_of"]  # fmt: skip

Clock = npt.NDArray[np.float64]
"""One number per row, or one for all rows."""

Mask = npt.NDArray[np.bool_]
"""Whether, likewise."""

_NODES = np.array([0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0])[:, None]
_ROWS = (
    (1.0 / 5.0,),
    (3.0 / 40.0, 9.0 / 40.0),
    (44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0),
    (19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0),
    (9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0),
)
_WEIGHTS = (35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0)
_ERROR = (
    71.0 / 57600.0,
    0.0,
    -71.0 / 16695.0,
    71.0 / 1920.0,
    -17253.0 / 339200.0,
    22.0 / 525.0,
    -1.0 / 40.0,
)
# the solution in the middle of a step, for interpolation (Shampine, 1986)
_MIDDLE = (
    6025192743.0 / 30085553152.0 / 2.0,
    0.0,
    51252292925.0 / 65400821598.0 / 2.0,
    -2691868925.0 / 45128329728.0 / 2.0,
    187940372067.0 / 1594534317056.0 / 2.0,
    -1776094331.0 / 19743644256.0 / 2.0,
    11237099.0 / 235043384.0 / 2.0,
)
_CALLS_AT_START, _CALLS_PER_ATTEMPT = 2, 6
_SAFETY, _SMALLEST, _LARGEST = 0.9, 0.2, 10.0
_EXPONENT = -0.2
_NO_ERROR = 1e-300

Slope = Callable[[Tensor], Tensor]
"""Slopes of states, (b, ...), at a fixed time."""

Predict = Callable[[Tensor], Prediction]
"""The model's predictions at states, (b, ...), at a fixed time."""

SlopesAt = Callable[[Tensor, Tensor], Sequence[Slope]]
"""``f(times, rows)``: the slopes at each of some times, (K,), or (K, b) where the states have their
own; ``rows`` are the indices of the states in the batch. Both are on the device of the states."""


class IntegrationError(RuntimeError):
    """An adaptive method could not reach the end within its limits."""


@dataclass(frozen=True)
class StepControl:
    """When a step is accepted, and the limit of attempts: both tolerances and the limit > 0.

    Attributes:
        per_sample: Whether each row has its own steps; else the norm runs over the whole batch.
        stops_at_end: Whether no step goes beyond the end.
    """

    stops_at_end: ClassVar[bool] = True

    rtol: float
    atol: float
    per_sample: bool
    max_steps: int

    def __post_init__(self) -> None:
        for name, tolerance in (("rtol", self.rtol), ("atol", self.atol)):
            if not tolerance > 0.0:
                raise ValueError(f"{name} is {tolerance}; expected a positive number")
        if self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps}; expected at least 1")

    def norm(self, value: Tensor) -> Clock:
        """Root mean square: (b,) per row, or (1,) over the batch."""
        flat = value.flatten(1) if self.per_sample else value.reshape(1, -1)
        total = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
        norms: Clock = total.cpu().numpy() / math.sqrt(flat.shape[1])
        return norms

    def norm_of_error(self, deviation: Tensor) -> Clock:
        """The norm of a scaled deviation between the formulas of order 5 and 4."""
        return self.norm(deviation)

    def accepts(self, error: Clock) -> Mask:
        """Whether steps with this error, in units of the tolerance, are accepted."""
        accepted: Mask = error < 1.0
        return accepted

    def growth(self, error: Clock, *, after_rejection: Mask) -> Clock:
        """The factor from a step that was tried to the next one."""
        factor: Clock = _factor(error, least=_SMALLEST)
        return np.where(self.accepts(error) & after_rejection, np.minimum(factor, 1.0), factor)

    def scale(self, *states: Tensor) -> Tensor:
        """``atol + rtol max |state|``."""
        size = states[0].abs()
        for other in states[1:]:
            torch.maximum(size, other.abs(), out=size)
        return size.mul_(self.rtol).add_(self.atol)


@dataclass(frozen=True)
class TorchdiffeqControl(StepControl):
    """The control of torchdiffeq's ``dopri5``, with steps that the whole batch shares.

    It differs from scipy's in four ways: the error is 2/3 of that of Dormand and Prince (another
    embedded formula); a step never shrinks after an accepted one and may grow after a rejected one;
    the first step is not bounded by the range; and the last one goes beyond the end, where the
    state is interpolated by a polynomial of fourth order.

    Source: Chen, torchdiffeq 0.2.5; Shampine, Some practical Runge-Kutta formulas, 1986.
    """

    stops_at_end: ClassVar[bool] = False

    def norm_of_error(self, deviation: Tensor) -> Clock:
        return self.norm(deviation) * (2.0 / 3.0)

    def accepts(self, error: Clock) -> Mask:
        accepted: Mask = error <= 1.0
        return accepted

    def growth(self, error: Clock, *, after_rejection: Mask) -> Clock:
        return np.where(error < 1.0, _factor(error, least=1.0), _factor(error, least=_SMALLEST))


def _factor(error: Clock, *, least: float) -> Clock:
    factor: Clock = np.clip(_SAFETY * np.maximum(error, _NO_ERROR) ** _EXPONENT, least, _LARGEST)
    return factor


@dataclass
class _Active:
    """The rows that have not arrived, by their indices in the batch.

    Times and step sizes are NumPy arrays on the host, where arithmetic on a few numbers costs
    least; a device is only synchronised for one norm per attempt. ``size`` is that of the next
    step; ``rejected`` says whether the last attempt failed.
    """

    rows: Tensor
    x: Tensor
    slope: Tensor
    t: Clock
    size: Clock
    rejected: Mask

    def select(self, keep: Mask) -> "_Active":
        """The rows where ``keep`` is true."""
        here = torch.from_numpy(keep).to(self.x.device)
        clocks = (self.t[keep], self.size[keep], self.rejected[keep])
        return _Active(self.rows[here], self.x[here], self.slope[here], *clocks)

    def slopes_at(self, f: SlopesAt, times: Clock) -> Sequence[Slope]:
        """The slopes at times (K, groups)."""
        on_device = torch.from_numpy(times).to(self.x.device)
        return f(on_device[:, 0] if times.shape[1] == 1 else on_device, self.rows)

    def moved(self, h: Clock, slopes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """``x + h sum_i weights_i slopes_i``."""
        if len(h) == 1:
            shares = [float(h[0]) * weight for weight in weights]
            return _added(torch.add(self.x, slopes[0], alpha=shares[0]), slopes, shares)
        wide = expand_as(torch.from_numpy(h), self.x)
        return torch.addcmul(self.x, wide, _added(slopes[0] * weights[0], slopes, weights))


def predictions_of(
    model: Model, conditions: Mapping[str, Tensor | None], *, batch: int
) -> Callable[[Tensor, Tensor], list[Predict]]:
    """The model at each of some times, under the conditions of the rows still being integrated.

    Conditions are (``batch``, ...) tensors such as ``labels``; the result is a function as
    :data:`SlopesAt`, with predictions in place of slopes.
    """

    def at(times: Tensor, rows: Tensor) -> list[Predict]:
        here = conditions
        if rows.shape[0] < batch:
            here = rows_of(conditions, rows)
        evaluations: Sequence[Callable[..., Prediction]] = model.at(times)
        return [partial(evaluate, **here) for evaluate in evaluations]

    return at


def integrate(
    f: SlopesAt,
    x: Tensor,
    *,
    start: float,
    end: float,
    control: StepControl,
    observe: Callable[[Tensor, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """States (B, ...) at ``end`` and evaluations (B,), int64, from states ``x`` at ``start``.

    ``observe`` is called with (t, x) at the start and after each round that moved something; t is
    () if the steps are shared, else (B,). The start may be smaller or larger than the end.

    Raises:
        IntegrationError: Too many attempts, too small a step, or a state that is not finite.

    Source: Dormand & Prince, 1980; control and initial step of scipy.integrate.RK45 (Hairer,
    Noersett & Wanner, Solving Ordinary Differential Equations I, II.4).
    """
    batch = x.shape[0]
    at_end = x.clone()
    calls = torch.full((batch,), _CALLS_AT_START, dtype=torch.int64)
    active = _begin(f, x, start, end, control)
    reached = active.t.copy()
    if observe is not None:
        observe(_copied(reached, x, control), x)
    for attempt in range(1, control.max_steps + 1):
        accepted = _attempt(f, active, end, control)
        finished = active.t == end
        arriving = np.count_nonzero(finished)
        if observe is not None and accepted.any():
            at_end[active.rows] = active.x
            reached[active.rows.cpu().numpy() if control.per_sample else slice(None)] = active.t
            observe(_copied(reached, x, control), at_end.clone())
        if not arriving:
            continue
        # Rows that share their steps arrive together.
        arrived = active if arriving == len(finished) else active.select(finished)
        at_end[arrived.rows] = arrived.x
        calls[arrived.rows.cpu()] += _CALLS_PER_ATTEMPT * attempt
        if arrived is active:
            return at_end, calls
        active = active.select(~finished)
    raise IntegrationError(
        f"{active.rows.shape[0]} of {batch} samples did not reach t={end} in max_steps="
        f"{control.max_steps} attempts (the first is at t={active.t[0]}); raise "
        f"max_steps or the tolerances"
    )


def _copied(t: Clock, x: Tensor, control: StepControl) -> Tensor:
    """A copy of the times for an observer."""
    times = torch.tensor(t, dtype=torch.float64, device=x.device)
    return times if control.per_sample else times[0]


def _begin(f: SlopesAt, x: Tensor, start: float, end: float, control: StepControl) -> _Active:
    """All rows at the start, with the initial step size of Hairer, Noersett and Wanner."""
    batch = x.shape[0]
    groups = batch if control.per_sample else 1
    t = np.full(groups, start)
    sign = math.copysign(1.0, end - start)
    span = abs(end - start) if control.stops_at_end else math.inf
    rows = torch.arange(batch, device=x.device)
    active = _Active(rows, x, x, t, t, np.zeros(groups, dtype=bool))
    active.slope = slope = active.slopes_at(f, t[None])[0](x)
    scale = control.scale(x)
    d0, d1 = control.norm(x / scale), control.norm(slope / scale)
    tiny = (d0 < 1e-5) | (d1 < 1e-5)
    with np.errstate(divide="ignore", invalid="ignore"):
        h0 = np.minimum(np.where(tiny, 1e-6, 0.01 * d0 / d1), span)
        probe = active.moved(sign * h0, [slope], [1.0])
        change = active.slopes_at(f, (t + sign * h0)[None])[0](probe) - slope
        d2 = control.norm(change / scale) / h0
        largest = np.maximum(d1, d2)
        small = np.maximum(1e-3 * h0, 1e-6)
        h1 = np.where(largest <= 1e-15, small, (0.01 / largest) ** 0.2)
    active.size = np.minimum(np.minimum(100.0 * h0, h1), span)
    return active


def _attempt(f: SlopesAt, w: _Active, end: float, control: StepControl) -> Mask:
    """One attempt in every row; moves those that were accepted and returns which."""
    sign = math.copysign(1.0, end - float(w.t[0]))
    smallest = 10.0 * np.abs(np.nextafter(w.t, sign * math.inf) - w.t)
    stuck = w.rejected & (w.size < smallest)
    t_new = w.t + sign * np.maximum(w.size, smallest)
    if control.stops_at_end:
        t_new = np.where(sign * (t_new - end) > 0.0, end, t_new)
    h = t_new - w.t
    step = _step(f, w, t_new, h)
    x_new, slope_new = step.x, step.slopes[-1]
    deviation = step.deviation().div_(control.scale(w.x, x_new))
    error = np.abs(h) * control.norm_of_error(deviation)
    lost = ~np.isfinite(error)
    if np.count_nonzero(stuck | lost):
        where = f"near t={w.t[np.nonzero(stuck | lost)[0][0]]}"
        small = "the step size fell below float64's spacing"
        reason = "the state is not finite" if lost.any() else small
        raise IntegrationError(f"{reason} {where}; the model's velocity may be singular there")
    accepted = control.accepts(error)
    factor = control.growth(error, after_rejection=w.rejected)
    if accepted.all() and sign * float(t_new[0] - end) > 0.0:  # steps are shared
        x_new, t_new = step.interpolated(w, h, (end - w.t) / h), np.full_like(t_new, end)
    moved = np.count_nonzero(accepted)
    if moved == len(accepted):
        w.x, w.slope = x_new, slope_new
    elif moved:
        mask = torch.from_numpy(accepted).to(w.x.device).reshape(-1, *([1] * (w.x.ndim - 1)))
        w.x, w.slope = torch.where(mask, x_new, w.x), torch.where(mask, slope_new, w.slope)
    w.t = np.where(accepted, t_new, w.t)
    w.size = np.abs(h) * factor
    w.rejected = ~accepted
    return accepted


@dataclass(frozen=True)
class _Step:
    """New states, and all slopes from those of the old to those of the new."""

    x: Tensor
    slopes: Sequence[Tensor]

    def deviation(self) -> Tensor:
        """The estimated error of the new states, divided by the length of the step."""
        return _added(self.slopes[0] * _ERROR[0], self.slopes, _ERROR)

    def interpolated(self, w: _Active, h: Clock, share: Clock) -> Tensor:
        """The states at a share of the step of length h, by a polynomial of fourth order."""
        s, length, first, last = float(share[0]), float(h[0]), self.slopes[0], self.slopes[-1]
        middle = w.moved(h, self.slopes, _MIDDLE)
        fourth = 2.0 * length * (last - first) - 8.0 * (self.x + w.x) + 16.0 * middle
        third = length * (5.0 * first - 3.0 * last) + 18.0 * w.x + 14.0 * self.x - 32.0 * middle
        second = length * (last - 4.0 * first) - 11.0 * w.x - 5.0 * self.x + 16.0 * middle
        return w.x + s * (length * first + s * (second + s * (third + s * fourth)))


def _step(f: SlopesAt, w: _Active, t_new: Clock, h: Clock) -> _Step:
    """A step of length h from the states to those at ``t_new``."""
    times = w.t + _NODES * h
    # Where the step ends to the last digit, so that the end of the range is not overstepped.
    times[-1] = t_new
    *inner, last = w.slopes_at(f, times)
    slopes = [w.slope]
    for slope, row in zip(inner, _ROWS, strict=True):
        slopes.append(slope(w.moved(h, slopes, row)))
    x_new = w.moved(h, slopes, _WEIGHTS)
    slopes.append(last(x_new))
    return _Step(x_new, slopes)


def _added(out: Tensor, slopes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """``out`` and the slopes after the first, weighted."""
    for slope, weight in zip(slopes[1:], weights[1:], strict=True):
        if weight != 0.0:
            out.add_(slope, alpha=weight)
    return out
