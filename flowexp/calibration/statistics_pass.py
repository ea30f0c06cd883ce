"""DPM-Solver-v3's statistics at one noise level, by Jacobian-vector products."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.calibration.jacobian import directional_derivative
from flowexp.models import Model
from flowexp.samplers import ModelStatistics

__all__ = [
    "GridPoint",
    "StatisticsDraws",
    "grid_points",
    "mean_sensitivity",
    "measure",
    "slope_moments",
    "Moments",
]

_NEGLIGIBLE = 1e-24


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of (f, d) over samples, per component, with what least squares of d on f needs.

    They hold ``sum f, d, f f, f d`` in the form that does not cancel: means and centred sums.

    Attributes:
        count: Number of samples.
        f: Mean of f.
        d: Mean of d.
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
    def of(cls, f: Tensor, d: Tensor, *, size: Tensor) -> "Moments":
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

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both together.

        Source: Chan, Golub & LeVeque, Updating formulae and a pairwise algorithm, 1979.
        """
        count = self.count + other.count
        share = other.count / count
        gap_f, gap_d = other.f - self.f, other.d - self.d
        return Moments(
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
        lam: ``log(alpha / sigma)``.
        t: Time, a float64 scalar on the device.
        alpha: Coefficient of the data.
        sigma: Coefficient of the source.
        time_rate: ``dt / dlambda = -alpha sigma / W``.
    """

    lam: float
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
    rows = zip(lam, times.to(device), c.alpha, c.sigma, rate, strict=True)
    return [GridPoint(float(u), t, float(a), float(s), float(r)) for u, t, a, s, r in rows]


@dataclass(frozen=True, eq=False)
class StatisticsDraws:
    """Data and noise over which statistics are taken; the same at every level.

    Attributes:
        x: Data, (K, ...).
        e: Source draws, (K, ...).
        probes: Rademacher probes (P, K, ...) for the diagonal of the Jacobian; None = exactly,
            by one product per component.
        conditions: (K, ...) tensors for the model.
        batch_size: Samples per call.
        device: Device of the computation.
        dtype: Of the state.
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
        for start in range(0, len(self.x), self.batch_size):
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
            repeated = {key: _repeated(value, copies) for key, value in conditions.items()}

            def noise(x: Tensor, given: dict[str, Tensor | None] = repeated) -> Tensor:
                return model.noise(x, point.t, **given)

            _, product = directional_derivative(noise, (_copies(state, copies),), (v,))
            total += (point.sigma * weight * (product * v).to(torch.float64)).sum(0)
    return (total / len(draws.x)).cpu()


def slope_moments(
    model: Model,
    point: GridPoint,
    draws: StatisticsDraws,
    *,
    l: Tensor,  # noqa: E741 - the paper's name
    dl: Tensor,
) -> Moments:
    """Moments of ``f = (sigma e - l x)/alpha`` and its derivative along the ODE, on the CPU.

    ``f' = exp(-lambda) [(l - 1) e + e'] - (dl/dlambda) x / alpha`` with
    ``e' = de/dlambda + (de/dx) dx/dlambda``, one product with the ODE's own direction.

    Args:
        model: The model.
        point: The level.
        draws: Over what to average.
        l: Of :func:`mean_sensitivity` there, of the shape of a sample.
        dl: ``dl / dlambda``.

    Source: as above, eq. 11 and appendix C.1.2.
    """
    l, dl = l.to(draws.device), dl.to(draws.device)  # noqa: E741 - the paper's name
    found: Moments | None = None
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
        batch = Moments.of(ratio * e - pulled, f_rate, size=pulled)
        found = batch if found is None else found.merged(batch)
    if found is None:
        raise ValueError("there are no draws to take statistics over")
    parts = (found.f, found.d, found.ff, found.fd, found.size)
    return Moments(found.count, *(part.cpu() for part in parts))


def _copies(tensor: Tensor, count: int) -> Tensor:
    return tensor.repeat(count, *[1] * (tensor.ndim - 1))


def _repeated(value: Tensor | None, count: int) -> Tensor | None:
    return None if value is None else _copies(value, count)


def slopes(l: Tensor, lam: Tensor) -> Tensor:  # noqa: E741 - the paper's name
    """``dl / dlambda`` on a uniform grid: central inside, one-sided at the ends."""
    return torch.gradient(l, spacing=(lam,), dim=0)[0]


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
    """The statistics on a grid of lambda, in one go; for models that are cheap to evaluate.

    Args:
        model: The model.
        lam: Uniform grid (N + 1,), float64, increasing.
        x: Data, (K, ...).
        e: Source draws, (K, ...).
        probes: Rademacher probes (P, K, ...), or None for exact diagonals.
        conditions: (K, ...) tensors for the model.
        batch_size: Samples per call.
    """
    draws = StatisticsDraws(x, e, probes, conditions or {}, batch_size, x.device)
    points = grid_points(model, lam, device=x.device)
    l = torch.stack([mean_sensitivity(model, point, draws) for point in points])  # noqa: E741
    lines = [
        slope_moments(model, point, draws, l=at, dl=rate).line()
        for point, at, rate in zip(points, l, slopes(l, lam), strict=True)
    ]
    s, b = (torch.stack(values) for values in zip(*lines, strict=True))
    return ModelStatistics(lam, l, s, b)
