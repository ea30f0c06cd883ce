"""DPM-Solver-v3: multistep updates with weights per pixel, from a model's statistics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.paths import Prediction
from flowexp.requirements import Extended
from flowexp.samplers.field import Field, Intervals, States
from flowexp.samplers.model_statistics import ModelStatistics, Statistics
from flowexp.samplers.multistep import Level, Multistepping, MultistepSampler, Remember, Rule
from flowexp.seeding import Noise

__all__ = ["DPMSolverV3"]


class DPMSolverV3(MultistepSampler):
    """DPM-Solver-v3: a multistep predictor-corrector in a model's own best parameterization.

    The model's statistics l, s and b choose it per noise level and pixel, see
    :class:`flowexp.samplers.ModelStatistics`. Remembered is ``f = (sigma e - l x) / alpha``, which
    a corrector leaves unchanged. With L and S the integrals of l and s from the step's start,
    ``beta = int exp(-S) b`` and ``E_k = int exp(L + S) (lambda - lambda_s)^k / k!`` over the step,
    the update of order n + 1 is::

        x' = alpha' exp(-L') [ x/alpha - int exp(L + S) beta - sum_{k=0}^n E_k g^(k) ]
        g_i = exp(-S_i) f_i - beta_i

    where g^(k) are derivatives of the polynomial through g_i (true order), or the k-th divided
    differences of the k + 1 nearest nodes, times k! (pseudo-order). Integrals are trapezoids on the
    grid of the statistics. As they all start at the step's start, nothing grows over the walk.

    The times of the grid move to the nearest points of the statistics' grid, also for the network.
    Where the grid ends at t = 0, the last step is the model's data prediction.

    Args:
        time_grid: The times between the steps, within the range of the statistics.
        statistics: Source of l, s and b.
        p_pseudo: Predictor of pseudo-order (for about 5 steps).
        corrector: Correct the state at every point but the last, where the order allows.
        c_pseudo: Corrector of pseudo-order, one higher than the predictor's.
        corrector_low: Points at or below this time, < corrector_high, are not corrected.
        corrector_high: Points above it are not. The paper's "half" is high = 0.5; its Stable
            Diffusion code does low = 0.5 instead.

    Source: Zheng et al., DPM-Solver-v3, 2023, arXiv 2310.13268, eq. 8, 11 to 15, algorithm 1 and
    appendices C and D; their code keeps node times in float32, here all is float64.
    """

    # Its steps lie on the statistics' grid, but an inversion's start does not.
    invertible = False

    def __init__(
        self,
        *,
        statistics: Statistics,
        order: int = 3,
        p_pseudo: bool = False,
        corrector: bool = True,
        c_pseudo: bool = False,
        corrector_low: float = 0.0,
        corrector_high: Extended = math.inf,
        **stepping: Unpack[Multistepping],
    ) -> None:
        super().__init__(order=order, **stepping)
        if not corrector_low < corrector_high:
            raise ValueError(
                f"corrector_low is {corrector_low}; expected a time below corrector_high="
                f"{corrector_high}"
            )
        self.statistics = statistics
        self.p_pseudo = p_pseudo
        self.corrector = corrector
        self.c_pseudo = c_pseudo
        self.corrector_low = float(corrector_low)
        self.corrector_high = float(corrector_high)

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        shape, known = z.shape[1:], self.statistics_of(field.model).l.shape[1:]
        if known != shape and any(length != 1 for length in known):
            raise ValueError(
                f"the statistics are of samples of shape {tuple(known)}, but these have "
                f"{tuple(shape)}"
            )
        return super().walk(field, z, intervals, noise)

    def times(self, model: Model) -> Tensor:
        """The time grid, moved to different points of the statistics' grid; a last 0 stays."""
        times, lam = self._wanted(model)
        statistics = self.statistics.of(model, float(lam[0]), float(lam[-1]))
        indices = statistics.indices(lam)
        if len(set(indices.tolist())) < len(indices):
            raise ValueError(
                f"{self.steps} steps on {self.time_grid!r} fall twice on one of the "
                f"{statistics.count + 1} points of the statistics' grid ({indices.tolist()}); use "
                f"fewer steps, another time grid, or statistics with a larger N"
            )
        low, high = model.time_range
        snapped = model.path.schedule.time_at_nsr(torch.exp(-statistics.lam[indices]))
        return torch.cat([snapped.clamp(min=low, max=high), times[len(indices) :]])

    def statistics_of(self, model: Model) -> ModelStatistics:
        """The statistics that :meth:`sample` uses for a model; a ValueError if there are none."""
        _, lam = self._wanted(model)
        return self.statistics.of(model, float(lam[0]), float(lam[-1]))

    def _wanted(self, model: Model) -> tuple[Tensor, Tensor]:
        """The grid's times, and lambda at those where noise is left."""
        times = super().times(model)
        lam = torch.log(model.path.schedule.nsr(times)).neg()
        if not bool(torch.isfinite(lam[:-1]).all()):
            raise ValueError(
                f"{self.time_grid!r} starts at t={float(times[0])}, where no data is left and "
                f"lambda is infinite; start it below (time_grid=log_snr does)"
            )
        return times, lam if bool(torch.isfinite(lam[-1])) else lam[:-1]

    def depends_on(self, field: Field) -> object:
        return self.statistics_of(field.model), field.device

    def rule(self, field: Field) -> Rule:
        return _PixelRule(self, self.statistics_of(field.model), field.device)


@dataclass(frozen=True, slots=True)
class _PixelWeights:
    """The update ``x' = constant + state x + sum_i outputs_i m_i`` with a weight per pixel."""

    constant: Tensor
    state: Tensor
    outputs: tuple[Tensor, ...]

    def __call__(self, x: Tensor, memory: Sequence[Tensor]) -> Tensor:
        """The new state; outputs beyond the last weight are not used."""
        z = torch.addcmul(self.constant, self.state, x)
        for weight, output in zip(self.outputs, memory, strict=False):
            z.addcmul_(weight, output)
        return z


class _PixelRule(Rule):
    """The updates of a sampler on given statistics; weights are computed in float64."""

    def __init__(
        self, sampler: DPMSolverV3, statistics: ModelStatistics, device: torch.device
    ) -> None:
        self.sampler = sampler
        self.statistics = statistics
        self.device = device
        self._gap = float(statistics.lam[-1] - statistics.lam[0]) / statistics.count
        self._L = self._cumulative(statistics.l.to(torch.float64))
        self._S = self._cumulative(statistics.s.to(torch.float64))

    def remember(self, level: Level) -> Remember:
        share = self._placed(self.statistics.l[self._index(level)].to(torch.float64) / level.alpha)
        factor = level.sigma / level.alpha

        def output(prediction: Prediction, x: Tensor) -> Tensor:
            return torch.addcmul(prediction.noise * factor, share, x, value=-1.0)

        return output

    def updates(
        self, nodes: Sequence[Level], end: Level, *, last: bool
    ) -> tuple[_PixelWeights, _PixelWeights | None]:
        """Predictor and corrector; the corrector of order p uses the new point and p - 2 old."""
        sampler = self.sampler
        predictor = self._update(nodes, end, pseudo=sampler.p_pseudo)
        pseudo = sampler.c_pseudo
        order = len(nodes) + pseudo
        within = sampler.corrector_low < end.time <= sampler.corrector_high
        if last or order < 2 or not (sampler.corrector and within):
            return predictor, None
        base, *older = nodes
        update = self._update([base, end, *older][:order], end, pseudo=pseudo)
        start, newest, *others = update.outputs
        return predictor, _PixelWeights(update.constant, update.state, (newest, start, *others))

    def leave(self, start: Level, end: Level) -> _PixelWeights:
        """DDIM's step, ``x' = alpha' D + sigma' e``, in terms of x and f."""
        l = self.statistics.l[self._index(start)].to(torch.float64)  # noqa: E741 - the paper's name
        noise, data = end.sigma / start.sigma, end.alpha / start.alpha
        output = torch.full_like(l, noise * start.alpha - end.alpha)
        state = data + (noise - data) * l
        return self._weights(torch.zeros_like(l), state, [output])

    def _update(self, nodes: Sequence[Level], end: Level, *, pseudo: bool) -> _PixelWeights:
        """Weights for the outputs at ``nodes``; the first is the step's start."""
        at = [self._index(node) for node in nodes]
        s, t = at[0], self._index(end)
        # S and beta, both 0 at index s, on the grid points from ``low`` on.
        low, high = min(at), max(t, *at)
        S = self._S[low : high + 1] - self._S[s]
        beta = self._cumulative(torch.exp(-S) * self.statistics.b[low : high + 1])
        beta = beta - beta[s - low]
        growth = self._L[s : t + 1] - self._L[s] + S[s - low : t - low + 1]
        grown = torch.exp(growth)
        offset = self.statistics.lam[s : t + 1] - self.statistics.lam[s]
        offset = offset.reshape(-1, *[1] * (grown.ndim - 1))
        integrals = [self._total(grown * offset**k / math.factorial(k)) for k in range(len(nodes))]
        drift = self._total(grown * beta[s - low : t - low + 1])
        lams = [node.lam for node in nodes]
        derivatives = _pseudo_derivatives(lams) if pseudo else _derivatives(lams)
        decay = end.alpha * torch.exp(self._L[s] - self._L[t])
        outputs = []
        for j, i in enumerate(at):
            share = sum(row[j] * e for row, e in zip(derivatives, integrals, strict=True))
            outputs.append(-decay * share * torch.exp(-S[i - low]))
            drift = drift - share * beta[i - low]
        return self._weights(-decay * drift, decay / nodes[0].alpha, outputs)

    def _cumulative(self, values: Tensor) -> Tensor:
        areas = 0.5 * self._gap * (values[1:] + values[:-1])
        return torch.cat([torch.zeros_like(values[:1]), torch.cumsum(areas, dim=0)])

    def _total(self, values: Tensor) -> Tensor:
        inner = values.sum(0) - 0.5 * (values[0] + values[-1])
        return self._gap * inner

    def _index(self, level: Level) -> int:
        return int(self.statistics.indices(torch.tensor(level.lam, dtype=torch.float64)))

    def _weights(self, constant: Tensor, state: Tensor, outputs: Sequence[Tensor]) -> _PixelWeights:
        placed = tuple(self._placed(output) for output in outputs)
        return _PixelWeights(self._placed(constant), self._placed(state), placed)

    def _placed(self, weight: Tensor) -> Tensor:
        return weight.to(device=self.device, dtype=self.sampler.dtype)


def _derivatives(lams: Sequence[float]) -> list[list[float]]:
    """Row k: weights of g_0 .. g_n in the k-th derivative at the first node, k = 0 .. n."""
    delta = torch.tensor(lams, dtype=torch.float64) - lams[0]
    count = len(lams)
    factorials = torch.tensor([math.factorial(k) for k in range(count)], dtype=torch.float64)
    vandermonde = delta[:, None] ** torch.arange(count, dtype=torch.float64) / factorials
    rows: list[list[float]] = torch.linalg.inv(vandermonde).tolist()
    return rows


def _pseudo_derivatives(lams: Sequence[float]) -> list[list[float]]:
    """As :func:`_derivatives`, the k-th from the first k + 1 nodes alone.

    A divided difference of f over nodes is ``sum_j f_j / prod_{i != j} (lam_j - lam_i)``.
    """
    rows = []
    for k in range(len(lams)):
        near = lams[: k + 1]
        weights = [math.factorial(k) / math.prod(a - b for b in near if b != a) for a in near]
        rows.append(weights + [0.0] * (len(lams) - k - 1))
    return rows
