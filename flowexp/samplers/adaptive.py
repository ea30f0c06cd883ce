"""The adaptive Dormand-Prince 5(4) integrator, with a step size per row or one for the batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.broadcast import expand_as

__all__ = ["IntegrationError", "Slope", "StepControl", "integrate"]

_NODES = (0.2, 0.3, 0.8, 8.0 / 9.0, 1.0)
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
_CALLS_AT_START, _CALLS_PER_ATTEMPT = 2, 6
_SAFETY, _SMALLEST, _LARGEST = 0.9, 0.2, 10.0
_EXPONENT = -0.2

Slope = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``f(x, t, rows)``: slopes (b, ...) of states at times (b,); ``rows`` are their places."""


class IntegrationError(RuntimeError):
    """An adaptive method could not reach the end within its limits."""


@dataclass(frozen=True)
class StepControl:
    """When a step is accepted, and how many may be tried.

    Attributes:
        rtol: Relative tolerance, > 0.
        atol: Absolute tolerance, > 0.
        per_sample: Whether each row has its own steps; else the norm runs over the whole batch.
        max_steps: Attempts allowed.

    Raises:
        ValueError: A tolerance or max_steps is not positive.
    """

    rtol: float
    atol: float
    per_sample: bool
    max_steps: int

    def __post_init__(self) -> None:
        if not (self.rtol > 0.0 and self.atol > 0.0):
            raise ValueError(f"need rtol > 0 and atol > 0, got rtol={self.rtol}, atol={self.atol}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps}; expected at least 1")

    def norm(self, value: Tensor) -> Tensor:
        """Root mean square: (b,) per row, or (1,) over the batch; float64."""
        dims = tuple(range(1, value.ndim)) if self.per_sample else tuple(range(value.ndim))
        return value.to(torch.float64).square().mean(dims).sqrt().reshape(-1)

    def scale(self, *states: Tensor) -> Tensor:
        """``atol + rtol max |state|``."""
        size = states[0].abs()
        for other in states[1:]:
            size = torch.maximum(size, other.abs())
        return size.mul_(self.rtol).add_(self.atol)


@dataclass
class _Walkers:
    """The rows still under way: their places, states and slopes; the rest per row or one in all."""

    rows: Tensor
    x: Tensor
    slope: Tensor
    t: Tensor
    size: Tensor
    rejected: Tensor

    def select(self, keep: Tensor) -> "_Walkers":
        """The rows where ``keep`` is true."""
        return _Walkers(**{name: value[keep] for name, value in vars(self).items()})


def integrate(
    f: Slope,
    x: Tensor,
    *,
    start: float,
    end: float,
    control: StepControl,
    observe: Callable[[Tensor, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """States at ``end`` and number of evaluations, from states ``x`` at ``start``.

    Args:
        f: Slopes.
        x: (B, ...).
        start: Where the states lie.
        end: Where they are wanted; smaller or larger than ``start``.
        control: Tolerances and limits.
        observe: Told (t, x) at the start and after each round that moved something; t is () if the
            steps are shared, else (B,).

    Returns:
        The states, (B, ...), and the evaluations, (B,) int64.

    Raises:
        IntegrationError: Too many attempts, too small a step, or a state that is not finite.

    Source: Dormand & Prince, 1980; control and initial step of scipy.integrate.RK45 (Hairer,
    Noersett & Wanner, Solving Ordinary Differential Equations I, II.4).
    """
    batch = x.shape[0]
    at_end = x.clone()
    calls = torch.full((batch,), _CALLS_AT_START, dtype=torch.int64)
    walkers = _begin(f, x, start, end, control)
    reached = walkers.t.clone()
    if observe is not None:
        observe(_shown(reached, control), x)
    for attempt in range(1, control.max_steps + 1):
        accepted = _attempt(f, walkers, end, control)
        moved, finished = torch.stack([accepted.any(), (walkers.t == end).any()]).tolist()
        if observe is not None and moved:
            at_end[walkers.rows] = walkers.x
            reached = reached.scatter(0, walkers.rows[: walkers.t.shape[0]], walkers.t)
            observe(_shown(reached, control), at_end.clone())
        if not finished:
            continue
        done = (walkers.t == end).expand(walkers.rows.shape[0])
        at_end[walkers.rows[done]] = walkers.x[done]
        calls[walkers.rows[done].cpu()] += _CALLS_PER_ATTEMPT * attempt
        if bool(done.all()):
            return at_end, calls
        walkers = walkers.select(~done)
    raise IntegrationError(
        f"{walkers.rows.shape[0]} of {batch} samples did not reach t={end} in max_steps="
        f"{control.max_steps} attempts (the first stands at t={float(walkers.t[0])}); raise "
        f"max_steps or the tolerances"
    )


def _shown(t: Tensor, control: StepControl) -> Tensor:
    return t.clone() if control.per_sample else t[0].clone()


def _begin(f: Slope, x: Tensor, start: float, end: float, control: StepControl) -> _Walkers:
    """The walkers at the start with scipy's initial step size."""
    batch = x.shape[0]
    groups = batch if control.per_sample else 1
    rows = torch.arange(batch, device=x.device)
    t = torch.full((groups,), start, dtype=torch.float64, device=x.device)
    span, sign = abs(end - start), 1.0 if end > start else -1.0
    slope = f(x, t.expand(batch), rows)
    scale = control.scale(x)
    d0, d1 = control.norm(x / scale), control.norm(slope / scale)
    tiny = (d0 < 1e-5) | (d1 < 1e-5)
    h0 = torch.where(tiny, 1e-6, 0.01 * d0 / d1).clamp(max=span)
    probe = x + expand_as(sign * h0, x) * slope
    change = f(probe, (t + sign * h0).expand(batch), rows) - slope
    d2 = control.norm(change / scale) / h0
    largest = torch.maximum(d1, d2)
    h1 = torch.where(largest <= 1e-15, (1e-3 * h0).clamp(min=1e-6), (0.01 / largest) ** 0.2)
    size = torch.minimum(100.0 * h0, h1).clamp(max=span)
    return _Walkers(rows, x, slope, t, size, torch.zeros_like(t, dtype=torch.bool))


def _attempt(f: Slope, w: _Walkers, end: float, control: StepControl) -> Tensor:
    """One attempt of every walker; returns which were accepted, and moves those."""
    sign = torch.sign(end - w.t)
    smallest = 10.0 * (torch.nextafter(w.t, sign * torch.inf) - w.t).abs()
    stuck = w.rejected & (w.size < smallest)
    t_new = w.t + sign * torch.maximum(w.size, smallest)
    t_new = torch.where(sign * (t_new - end) > 0.0, end, t_new)
    h = t_new - w.t
    x_new, slope_new, deviation = _step(f, w, t_new, h)
    error = control.norm(deviation.div_(control.scale(w.x, x_new)))
    bad, lost = torch.stack([stuck.any(), ~torch.isfinite(error).all()]).tolist()
    if bad or lost:
        where = f"near t={float(w.t[torch.nonzero(stuck | ~torch.isfinite(error))[0, 0]])}"
        reason = "the state is not finite" if lost else "the step size fell below float64's spacing"
        raise IntegrationError(f"{reason} {where}; the model's velocity may be singular there")
    accepted = error < 1.0
    factor = (_SAFETY * error**_EXPONENT).clamp(_SMALLEST, _LARGEST)
    factor = torch.where(accepted & w.rejected, factor.clamp(max=1.0), factor)
    mask = accepted.reshape(-1, *([1] * (w.x.ndim - 1)))
    w.x = torch.where(mask, x_new, w.x)
    w.slope = torch.where(mask, slope_new, w.slope)
    w.t = torch.where(accepted, t_new, w.t)
    w.size = h.abs() * factor
    w.rejected = ~accepted
    return accepted


def _step(f: Slope, w: _Walkers, t_new: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """New states, their slopes, and the estimated error of the states."""
    count = w.x.shape[0]
    wide = expand_as(h, w.x)
    slopes = [w.slope]
    for c, row in zip(_NODES, _ROWS, strict=True):
        state = torch.addcmul(w.x, wide, _combine(slopes, row))
        slopes.append(f(state, (w.t + c * h).expand(count), w.rows))
    x_new = torch.addcmul(w.x, wide, _combine(slopes, _WEIGHTS))
    slopes.append(f(x_new, t_new.expand(count), w.rows))
    return x_new, slopes[-1], _combine(slopes, _ERROR).mul_(wide)


def _combine(slopes: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    out = slopes[0] * weights[0]
    for slope, weight in zip(slopes[1:], weights[1:], strict=True):
        if weight != 0.0:
            out.add_(slope, alpha=weight)
    return out
