"""UniPC, a predictor-corrector of any order with one evaluation per step."""

import math
from collections.abc import Sequence
from typing import Unpack

from flowexp.samplers.multistep import (
    Level,
    LinearMultistepSampler,
    Multistepping,
    Weights,
    first_order,
    phi,
)

__all__ = ["UniPC"]


class UniPC(LinearMultistepSampler):
    """UniPC-p with B(h) = h (bh1) or exp(h) - 1 (bh2), on data or noise prediction.

    With ``h = lambda' - lambda``, ``z = -h`` for data (h for noise), remembered outputs ``D_i`` at
    ``r_i = (lambda_i - lambda)/h < 0`` and the new one at r_p = 1::

        x' = first order - alpha' B sum_i rho_i (D_i - D_0)/r_i
        sum_j r_j^(i-1) rho_j = i! z phi_{i+1}(z) / B,   i = 1, 2, ...

    (sigma' for alpha' with noise). The predictor solves the p - 1 equations of the old outputs, the
    corrector the p equations of all; one unknown alone is set to 1/2. The corrected state is kept
    together with the output at the predicted one, so that correcting costs no evaluation; the last
    step is not corrected.

    Args:
        order: p, 1 to 3 (3 for unconditional sampling, 2 under guidance, as published).
        predicts_data: Work with predicted data, else noise.
        exponential: bh2, else bh1.
        corrector: Correct all steps but the last.

    Source: Zhao et al., UniPC, 2023, arXiv 2302.04867, eq. 3 to 9 and appendix; the 1/2 is from the
    authors' code.
    """

    def __init__(
        self,
        *,
        order: int = 3,
        predicts_data: bool = True,
        exponential: bool = True,
        corrector: bool = True,
        **stepping: Unpack[Multistepping],
    ) -> None:
        super().__init__(order=order, predicts_data=predicts_data, **stepping)
        self.exponential = exponential
        self.corrector = corrector

    def updates(
        self, nodes: Sequence[Level], end: Level, *, last: bool
    ) -> tuple[Weights, Weights | None]:
        start = nodes[0]
        base = first_order(start, end, predicts_data=self.predicts_data)
        h = end.lam - start.lam
        z, factor = (-h, -end.alpha) if self.predicts_data else (h, -end.sigma)
        b = math.expm1(z) if self.exponential else z
        old = [(node.lam - start.lam) / h for node in nodes[1:]]
        moments = [math.factorial(i) * z * phi(i + 1, z) / b for i in range(1, len(nodes) + 1)]
        weights = [factor * b * rho for rho in _solve(old, moments)]
        outputs = _from_differences(base.outputs[0], weights, old)
        predictor = Weights(base.state, tuple(outputs))
        if last or not self.corrector:
            return predictor, None
        *weights, newest = (factor * b * rho for rho in _solve([*old, 1.0], moments))
        start_weight, *others = _from_differences(base.outputs[0] - newest, weights, old)
        return predictor, Weights(base.state, (newest, start_weight, *others))


def _solve(places: Sequence[float], moments: Sequence[float]) -> list[float]:
    """``rho`` with ``sum_j places_j^(i-1) rho_j = moments_i`` for as many i as places.

    By elimination on Python floats: a library call would cost more than the rest of a step.
    """
    count = len(places)
    if count <= 1:
        return [0.5] * count
    rows = [[r**i for r in places] + [moments[i]] for i in range(count)]
    # Row i + 1 minus places[k] times row i has no unknown k; see Bjoerck & Pereyra, 1970.
    for k in range(count - 1):
        for i in range(count - 1, k, -1):
            rows[i] = [a - places[k] * b for a, b in zip(rows[i], rows[i - 1], strict=True)]
    rho = [0.0] * count
    for i in range(count - 1, -1, -1):
        known = sum(rows[i][j] * rho[j] for j in range(i + 1, count))
        rho[i] = (rows[i][count] - known) / rows[i][i]
    return rho


def _from_differences(w0: float, weights: Sequence[float], places: Sequence[float]) -> list[float]:
    """Weights of ``D_0, D_1, ...`` in ``w0 D_0 + sum_i weights_i (D_i - D_0)/places_i``."""
    others = [w / r for w, r in zip(weights, places, strict=True)]
    return [w0 - sum(others), *others]
