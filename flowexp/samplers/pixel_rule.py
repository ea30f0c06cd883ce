"""Multistep updates with weights per pixel: the integrals of DPM-Solver-v3."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.paths import Prediction
from flowexp.samplers.model_statistics import ModelStatistics
from flowexp.samplers.multistep import Level, Remember, Rule

__all__ = ["CorrectorRange", "PixelRule", "PixelWeights"]


@dataclass(frozen=True, slots=True)
class PixelWeights:
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


@dataclass(frozen=True, slots=True)
class CorrectorRange:
    """Which points are corrected: those with ``low < t <= high``.

    Attributes:
        low: Exclusive bound.
        high: Inclusive bound.
        pseudo: Divided differences, from one more node.
    """

    low: float
    high: float
    pseudo: bool


class PixelRule(Rule):
    """DPM-Solver-v3's update of order n + 1 on given statistics.

    Remembered is ``f = (sigma e - l x) / alpha``, which a corrector leaves unchanged. With L and S
    the integrals of l and s from the step's start, ``beta = int exp(-S) b`` and
    ``E_k = int exp(L + S) (lambda - lambda_s)^k / k!`` over the step::

        x' = alpha' exp(-L') [ x/alpha - int exp(L + S) beta - sum_{k=0}^n E_k g^(k) ]
        g_i = exp(-S_i) f_i - beta_i

    where g^(k) are derivatives of the polynomial through g_i (true order), or the k-th divided
    differences of the k + 1 nearest nodes, times k! (pseudo-order). Integrals are trapezoids on the
    grid of the statistics. As they all start at the step's start, nothing grows over the walk.

    Args:
        statistics: l, s, b.
        pseudo: Pseudo-order in the predictor.
        corrector: Which points are corrected; None = none.
        device: Device of the weights.
        dtype: Their dtype; they are computed in float64.

    Source: Zheng et al., DPM-Solver-v3, 2023, arXiv 2310.13268, eq. 8, 11 to 15 and appendix C.
    """

    def __init__(
        self,
        statistics: ModelStatistics,
        *,
        pseudo: bool,
        corrector: CorrectorRange | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.statistics = statistics
        self.pseudo = pseudo
        self.corrector = corrector
        self.device = device
        self.dtype = dtype
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
    ) -> tuple[PixelWeights, PixelWeights | None]:
        """Predictor and corrector; the corrector of order p uses the new point and p - 2 old."""
        predictor = self._update(nodes, end, pseudo=self.pseudo)
        rule = self.corrector
        order = len(nodes) + (1 if rule is not None and rule.pseudo else 0)
        if rule is None or last or order < 2 or not rule.low < end.time <= rule.high:
            return predictor, None
        base, *older = nodes
        update = self._update([base, end, *older][:order], end, pseudo=rule.pseudo)
        start, newest, *others = update.outputs
        return predictor, PixelWeights(update.constant, update.state, (newest, start, *others))

    def leave(self, start: Level, end: Level) -> PixelWeights:
        """DDIM's step, ``x' = alpha' D + sigma' e``, in terms of x and f."""
        l = self.statistics.l[self._index(start)].to(torch.float64)  # noqa: E741 - the paper's name
        noise, data = end.sigma / start.sigma, end.alpha / start.alpha
        output = torch.full_like(l, noise * start.alpha - end.alpha)
        state = data + (noise - data) * l
        return PixelWeights(
            self._placed(torch.zeros_like(l)), self._placed(state), (self._placed(output),)
        )

    def _update(self, nodes: Sequence[Level], end: Level, *, pseudo: bool) -> PixelWeights:
        """Weights for the outputs at ``nodes``; the first is the step's start."""
        at = [self._index(node) for node in nodes]
        s, t = at[0], self._index(end)
        S, beta = self._from(s, min(at), max(t, *at))
        growth = self._L[s : t + 1] - self._L[s] + S[s - min(at) : t - min(at) + 1]
        grown = torch.exp(growth)
        offset = self.statistics.lam[s : t + 1] - self.statistics.lam[s]
        offset = offset.reshape(-1, *[1] * (grown.ndim - 1))
        integrals = [self._total(grown * offset**k / math.factorial(k)) for k in range(len(nodes))]
        drift = self._total(grown * beta[s - min(at) : t - min(at) + 1])
        lams = [node.lam for node in nodes]
        derivatives = _pseudo_derivatives(lams) if pseudo else _derivatives(lams)
        decay = end.alpha * torch.exp(self._L[s] - self._L[t])
        outputs = []
        for j, i in enumerate(at):
            share = sum(row[j] * e for row, e in zip(derivatives, integrals, strict=True))
            outputs.append(-decay * share * torch.exp(-S[i - min(at)]))
            drift = drift - share * beta[i - min(at)]
        state = decay / nodes[0].alpha
        weights = tuple(self._placed(output) for output in outputs)
        return PixelWeights(self._placed(-decay * drift), self._placed(state), weights)

    def _from(self, s: int, low: int, high: int) -> tuple[Tensor, Tensor]:
        """S and beta, both 0 at index ``s``, on the grid points ``low`` to ``high``."""
        S = self._S[low : high + 1] - self._S[s]
        beta = self._cumulative(torch.exp(-S) * self.statistics.b[low : high + 1])
        return S, beta - beta[s - low]

    def _cumulative(self, values: Tensor) -> Tensor:
        areas = 0.5 * self._gap * (values[1:] + values[:-1])
        return torch.cat([torch.zeros_like(values[:1]), torch.cumsum(areas, dim=0)])

    def _total(self, values: Tensor) -> Tensor:
        inner = values.sum(0) - 0.5 * (values[0] + values[-1])
        return self._gap * inner

    def _index(self, level: Level) -> int:
        return int(self.statistics.indices(torch.tensor(level.lam, dtype=torch.float64)))

    def _placed(self, weight: Tensor) -> Tensor:
        return weight.to(device=self.device, dtype=self.dtype)


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
