"""DPM-Solver-v3's statistics at one noise level, by Jacobian-vector products."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowexp.calibration.base import RunParts
from flowexp.models import Model
from flowexp.objectives.flow_map import forward_mode
from flowexp.progress import steps_of
from flowexp.samplers import ModelStatistics

__all__ = ["SlopeMoments", "StatisticsDraws", "measure", "statistics_over"]

_NEGLIGIBLE = 1e-24


def directional_derivative(
    function: Callable[..., Tensor], point: tuple[Tensor, ...], direction: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """The value of a function and its derivative along a direction, ``J v``.

    By forward-mode differentiation, which keeps no graph; where an operation of the network has
    none, by differentiating the vector-Jacobian product ``u -> u^T J``, linear in u, with respect
    to u (two backward passes). Attention runs in its plain form, the only one that is
    differentiable in both ways. ``point`` and ``direction`` have one tensor for each argument.
    """
    with forward_mode():
        try:
            with torch.no_grad():
                value, derivative = torch.func.jvp(function, point, direction)[:2]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            # The errors of operations without forward mode differ; another failure is raised again
            # by the backward passes.
            backward: Any = torch.autograd.functional.jvp
            value, derivative = backward(function, point, direction)
    return value.detach(), derivative.detach()


@dataclass(frozen=True, eq=False)
class SlopeMoments:
    """Moments of (f, d) over samples, per component, with what least squares of d on f needs.

    They hold ``sum f, d, f f, f d`` in the form that does not cancel: means and centred sums.

    Attributes:
        count: Number of samples.
        f, d: The means.
        ff: ``sum (f - mean f)^2``.
        fd: ``sum (f - mean f)(d - mean d)``.
        size: ``sum`` of the squares of the terms whose difference is f: the scale of its rounding.
    """

    count: int
    f: Tensor
    d: Tensor
    ff: Tensor
    fd: Tensor
    size: Tensor

    @classmethod
    def of(cls, f: Tensor, d: Tensor, *, size: Tensor) -> "SlopeMoments":
        """The moments of one batch, (B, ...); ``size`` is (B, ...) too."""
        mean_f, mean_d = f.mean(0), d.mean(0)
        centred = f - mean_f
        return cls(
            len(f),
            mean_f,
            mean_d,
            (centred**2).sum(0),
            (centred * (d - mean_d)).sum(0),
            (size**2).sum(0),
        )

    def merged(self, other: "SlopeMoments") -> "SlopeMoments":
        """The moments of both together.

        Source: Chan, Golub & LeVeque, Updating formulae and a pairwise algorithm, 1979.
        """
        count = self.count + other.count
        share = other.count / count
        gap_f, gap_d = other.f - self.f, other.d - self.d
        return SlopeMoments(
            count,
            self.f + share * gap_f,
            self.d + share * gap_d,
            self.ff + other.ff + self.count * share * gap_f**2,
            self.fd + other.fd + self.count * share * gap_f * gap_d,
            self.size + other.size,
        )

    def line(self) -> tuple[Tensor, Tensor]:
        """``(s, b)`` with least ``sum (d - s f - b)^2``; s = 0 where f does not vary.

        f is constant over x for a single Gaussian; what varies then is rounding.
        """
        constant = self.ff <= _NEGLIGIBLE * self.size
        safe = torch.where(constant, torch.ones_like(self.ff), self.ff)
        s = torch.where(constant, torch.zeros_like(self.ff), self.fd / safe)
        return s, self.d - s * self.f


@dataclass(frozen=True, eq=False)
class GridPoint:
    """A noise level of the statistics' grid.

    Attributes:
        t: Time, a float64 scalar on the device.
        time_rate: ``dt / dlambda = -alpha sigma / W``.
    """

    t: Tensor
    alpha: float
    sigma: float
    time_rate: float


def grid_points(model: Model, lam: Tensor, *, device: torch.device | str) -> list[GridPoint]:
    """The points of a float64 grid (N + 1,) of lambda."""
    low, high = model.time_range
    times = model.path.schedule.time_at_nsr(torch.exp(-lam)).clamp(min=low, max=high)
    c = model.path.schedule.coefficients(times)
    rate = -c.alpha * c.sigma / c.wronskian
    numbers = (value.tolist() for value in (c.alpha, c.sigma, rate))
    return [GridPoint(*row) for row in zip(times.to(device), *numbers, strict=True)]


@dataclass(frozen=True, eq=False)
class StatisticsDraws:
    """Data and noise over which statistics are taken; the same at every level.

    Attributes:
        x, e: Data and source draws, (K, ...).
        probes: Rademacher probes (P, K, ...) for the diagonal of the Jacobian; None = exactly,
            by one product per component.
        conditions: (K, ...) tensors for the model.
        batch_size: Samples per call.
        device, dtype: Of the states.
    """

    x: Tensor
    e: Tensor
    probes: Tensor | None
    conditions: Mapping[str, Tensor | None]
    batch_size: int
    device: torch.device | str
    dtype: torch.dtype = torch.float64

    def states(self, point: GridPoint) -> Iterator[tuple[slice, Tensor, dict[str, Tensor | None]]]:
        """Batches of ``alpha x + sigma e``: which rows, the states, their conditions."""
        starts = range(0, len(self.x), self.batch_size)
        begun = steps_of(1.0, steps=len(starts))
        for start in starts:
            if begun is not None:
                begun()
            rows = slice(start, start + self.batch_size)
            x, e = self._placed(self.x[rows]), self._placed(self.e[rows])
            conditions = {
                key: None if value is None else value[rows].to(self.device)
                for key, value in self.conditions.items()
            }
            yield rows, point.alpha * x + point.sigma * e, conditions

    def directions(self, rows: slice, state: Tensor) -> Iterator[tuple[Tensor, float]]:
        """Vectors v for ``diag J ~ sum weight (J v) v``: copies of the batch, (C B, ...).

        Exact diagonals take as many components in one call as the batch size allows.
        """
        if self.probes is not None:
            for probe in self.probes:
                yield self._placed(probe[rows]), 1.0 / len(self.probes)
            return
        count = state[0].numel()
        units = torch.eye(count, dtype=self.dtype, device=self.device)
        for some in torch.split(units, max(1, self.batch_size // len(state))):
            yield some.repeat_interleave(len(state), dim=0).reshape(-1, *state.shape[1:]), 1.0

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(device=self.device, dtype=self.dtype)


def mean_sensitivity(model: Model, point: GridPoint, draws: StatisticsDraws) -> Tensor:
    """``l = E[diag(sigma d e / d x)]``, of the shape of a sample, float64 on the CPU.

    Source: Zheng et al., DPM-Solver-v3, 2023, arXiv 2310.13268, eq. 7 and appendix C.1.1 (there one
    probe per datum).
    """
    total = torch.zeros(draws.x.shape[1:], dtype=torch.float64, device=draws.device)
    for rows, state, conditions in draws.states(point):
        for v, weight in draws.directions(rows, state):
            copies = len(v) // len(state)
            repeated = {
                key: None if value is None else torch.cat([value] * copies)
                for key, value in conditions.items()
            }

            def noise(x: Tensor, given: dict[str, Tensor | None] = repeated) -> Tensor:
                return model.noise(x, point.t, **given)

            _, product = directional_derivative(noise, (torch.cat([state] * copies),), (v,))
            total += (point.sigma * weight * (product * v).to(torch.float64)).sum(0)
    return (total / len(draws.x)).cpu()


def slope_moments(
    model: Model,
    point: GridPoint,
    draws: StatisticsDraws,
    *,
    l: Tensor,  # noqa: E741 - the paper's name
    dl: Tensor,
) -> SlopeMoments:
    """Moments of ``f = (sigma e - l x)/alpha`` and its derivative along the ODE, on the CPU.

    ``f' = exp(-lambda) [(l - 1) e + e'] - (dl/dlambda) x / alpha`` with
    ``e' = de/dlambda + (de/dx) dx/dlambda``, one product with the ODE's own direction;
    ``l`` is that of :func:`mean_sensitivity` there, ``dl`` its ``dl/dlambda``.

    Source: as above, eq. 11 and appendix C.1.2.
    """
    l, dl = l.to(draws.device), dl.to(draws.device)  # noqa: E741 - the paper's name
    found: SlopeMoments | None = None
    for _, state, conditions in draws.states(point):

        def noise(
            x: Tensor, t: Tensor, conditions: dict[str, Tensor | None] = conditions
        ) -> Tensor:
            return model.noise(x, t, **conditions)

        with torch.no_grad():
            velocity = model.velocity(state, point.t, **conditions)
        direction = (velocity * point.time_rate, torch.full_like(point.t, point.time_rate))
        value, derivative = directional_derivative(noise, (state, point.t), direction)
        e, de, x = (v.to(torch.float64) for v in (value, derivative, state))
        ratio = point.sigma / point.alpha
        pulled = l * x / point.alpha
        f_rate = ratio * ((l - 1.0) * e + de) - dl * x / point.alpha
        batch = SlopeMoments.of(ratio * e - pulled, f_rate, size=pulled)
        found = batch if found is None else found.merged(batch)
    if found is None:
        raise ValueError("there are no draws to take statistics over")
    parts = (found.f, found.d, found.ff, found.fd, found.size)
    return SlopeMoments(found.count, *(part.cpu() for part in parts))


def slopes(l: Tensor, lam: Tensor) -> Tensor:  # noqa: E741 - the paper's name
    """``dl / dlambda`` on a uniform grid: central inside, one-sided at the ends."""
    return torch.gradient(l, spacing=(lam,), dim=0)[0]


def statistics_over(
    model: Model,
    lam: Tensor,
    draws: StatisticsDraws,
    *,
    run: RunParts,
    fixed_l: float | None = None,
) -> ModelStatistics:
    """The statistics on a uniform grid (N + 1,) of lambda, in two passes: l, then s and b.

    ``run`` performs a pass; ``fixed_l`` is taken for l everywhere, without the first pass.
    """
    points = grid_points(model, lam, device=draws.device)
    if fixed_l is None:
        passed = run(
            "l",
            len(points),
            lambda i: {"l": mean_sensitivity(model, points[i], draws)},
            what="statistic l for",
            unit="times",
        )
        l = torch.stack([part["l"] for part in passed])  # noqa: E741 - the paper's name
    else:
        full = (len(lam), *draws.x.shape[1:])
        l = torch.full(full, fixed_l, dtype=torch.float64)  # noqa: E741 - the paper's name
    rates = slopes(l, lam)

    def moments(i: int) -> dict[str, Tensor]:
        found = slope_moments(model, points[i], draws, l=l[i], dl=rates[i])
        return {name: torch.as_tensor(value) for name, value in vars(found).items()}

    passed = run("sb", len(points), moments, what="statistics s and b for", unit="times")
    names = ("f", "d", "ff", "fd", "size")
    lines = [SlopeMoments(int(p["count"]), *(p[n] for n in names)).line() for p in passed]
    s, b = (torch.stack(values) for values in zip(*lines, strict=True))
    return ModelStatistics(lam, l, s, b)


def measure(
    model: Model,
    lam: Tensor,
    *,
    x: Tensor,
    e: Tensor,
    probes: Tensor | None,
    conditions: Mapping[str, Tensor | None] | None = None,
    batch_size: int = 256,
) -> ModelStatistics:
    """:func:`statistics_over` in one go, for models that are cheap to evaluate.

    The arguments after ``lam`` are those of :class:`StatisticsDraws`.
    """
    draws = StatisticsDraws(x, e, probes, conditions or {}, batch_size, x.device)
    return statistics_over(
        model, lam, draws, run=lambda name, count, part, **_: [part(i) for i in range(count)]
    )
