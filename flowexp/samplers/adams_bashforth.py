"""Adams-Bashforth methods, with the exact weights of a grid and with those that replace them."""

from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import islice
from typing import ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from flowexp.samplers.base import TimeGrid
from flowexp.samplers.field import Field, Intervals, NoiseToSignal, States, Variable
from flowexp.samplers.fixed_step import FixedStepSampler, Stepping, SteppingInTime
from flowexp.samplers.noise_grids import EDMGrid, VPGrid, VPLevels
from flowexp.seeding import Noise

__all__ = ["DEIS", "IPNDM", "AdamsBashforth", "IPNDMVariable", "adams_weights"]

_QUADRATURE_POINTS = 128
"""Weights to rounding; to 1e-10 in a single step from sigma/alpha = 5 to 0."""


def adams_weights(nodes: Sequence[float], end: float) -> list[float]:
    """Weights of the slopes at ``nodes`` in the step from ``nodes[0]`` to ``end``.

    ``w_j = int_{u_0}^{end} prod_{k != j} (u - u_k) / (u_j - u_k) du``: the integral of the
    polynomial through the slopes. On a uniform grid they are the constants 3/2, -1/2 and so on,
    times h. The nodes are all different, the newest first.
    """
    h = end - nodes[0]
    places = [(u - nodes[0]) / h for u in nodes]
    weights = []
    for j, own in enumerate(places):
        # Coefficients, lowest power first.
        polynomial = [1.0]
        for other in places[:j] + places[j + 1 :]:
            shifted = zip([0.0, *polynomial], [*polynomial, 0.0], strict=True)
            polynomial = [(up - other * low) / (own - other) for up, low in shifted]
        weights.append(h * sum(a / (power + 1) for power, a in enumerate(polynomial)))
    return weights


class AdamsBashforth(FixedStepSampler):
    """Linear multistep method with one evaluation per step (none in an empty one), on any grid.

    ``z' = z + sum_j w_j f_j`` with the newest slopes ``f_0, f_1, ...``. The first steps use the
    slopes there are (orders 1, 2, ...), so that the global order is at most 2; each later step has
    the requested order. With ``variable=nsr``, or on the VE path, this is k-diffusion's LMS
    sampler. A subclass has other weights.

    Args:
        order: Number of slopes, 1 to 4.
        final_euler: Whether the step that reaches t = 0 is Euler's; in sigma/alpha that is the
            denoised state.

    Source: Bashforth & Adams, 1883; variable steps in Hairer, Noersett & Wanner, Solving Ordinary
    Differential Equations I, III.5.
    """

    later_options: ClassVar[Mapping[str, object]] = {
        **FixedStepSampler.later_options,
        "final_euler": False,
    }
    passes_over_empty = True

    def __init__(
        self, *, order: int = 4, final_euler: bool = False, **stepping: Unpack[Stepping]
    ) -> None:
        super().__init__(**stepping)
        if order not in (1, 2, 3, 4):
            raise ValueError(f"order is {order}; expected 1, 2, 3 or 4")
        self.order = order
        self.final_euler = final_euler

    def weights(self, nodes: Sequence[float], end: float) -> list[float]:
        """Weights of the slopes at ``nodes``, newest first, in the step to ``end``."""
        return adams_weights(nodes, end)

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        slopes: deque[Tensor] = deque(maxlen=self.order)
        nodes: deque[float] = deque(maxlen=self.order)
        for interval in intervals:
            slopes.appendleft(field.slope(z, interval.start))
            nodes.appendleft(interval.start.u)
            count = 1 if self.final_euler and interval.reaches_data else len(nodes)
            first, *rest = self.weights(list(nodes)[:count], interval.end.u)
            z = torch.add(z, slopes[0], alpha=first)
            for weight, slope in zip(rest, islice(slopes, 1, count), strict=True):
                z.add_(slope, alpha=weight)
            yield z


class _InNoiseToSignal(AdamsBashforth):
    """A method that is published in the noise level; another variable makes another method."""

    def __init__(
        self,
        *,
        order: int = 4,
        final_euler: bool = True,
        variable: Variable | None = None,
        **stepping: Unpack[SteppingInTime],
    ) -> None:
        own = NoiseToSignal() if variable is None else variable
        super().__init__(order=order, final_euler=final_euler, variable=own, **stepping)

    def default_grid(self) -> TimeGrid:
        return EDMGrid()


class IPNDM(_InNoiseToSignal):
    """Adams-Bashforth with the constants of uniform grids on every grid, in ``n = sigma/alpha``.

    ``z' = z + h sum_j b_j e_j`` with b = (1), (3, -1)/2, (23, -16, 5)/12 or (55, -59, 37, -9)/24
    as the memory grows. On a grid that is finer near the data the steps shrink, and the constants
    extrapolate less than the exact weights of :class:`AdamsBashforth`.

    Args:
        variable: The variable in which steps are taken; None = sigma/alpha, as published.

    Source: Zhang & Chen, DEIS, 2022, arXiv 2204.13902, section 4; in this form ("iPNDM") in
    zju-pi/diff-sampler.
    """

    def weights(self, nodes: Sequence[float], end: float) -> list[float]:
        h = end - nodes[0]
        return [h * b for b in adams_weights([-float(j) for j in range(len(nodes))], 1.0)]


class IPNDMVariable(_InNoiseToSignal):
    """iPNDM_v as coded and published, whose weights of order 3 and 4 are not Adams-Bashforth's.

    With the step ``h`` and the ones before it ``h_1, h_2, h_3``, ``A = h/(3(h + h_1))`` and
    ``a = h_1/h_2``, the weights divided by h are::

        order 2:   (1 + h/(2 h_1), -h/(2 h_1))
        order 3:   + q (1, -(1 + a), a),   q = (1 - A B)/2,   B = h (h + h_1)/(h_1 (h_1 + h_2))
        order 4:   + p (1, -(1 + a + K), a + K (1 + h_2/h_3), -K a)
                   K = h_1 (h_1 + h_2)/(h_2 (h_2 + h_3))
                   p = ((1 - A)/2 + (1 - h/(2(h + h_1))) h/(6(h + h_1 + h_2)))
                       h (h + h_1)(h + h_1 + h_2)/(h_1 (h_1 + h_2)(h_1 + h_2 + h_3))

    :class:`AdamsBashforth`, which this was meant to be, has ``q = (1 - A) B/2``. Order 4 differs
    even on a uniform grid (11/24 for 9/24), and its weights sum to 1 only where ``a = h_2/h_3``.

    Args:
        variable: The variable in which steps are taken; None = sigma/alpha, as published.

    Source: zju-pi/diff-sampler, ``ipndm_v_sampler``, with which its tables were made.
    """

    def weights(self, nodes: Sequence[float], end: float) -> list[float]:
        h, *before = (new - old for new, old in zip([end, *nodes], nodes, strict=False))
        weights = [1.0]
        if before:
            half = 0.5 * h / before[0]
            weights = [1.0 + half, -half]
        if len(before) > 1:
            h1, h2 = before[:2]
            a, big_a = h1 / h2, h / (3.0 * (h + h1))
            q = 0.5 * (1.0 - big_a * h * (h + h1) / (h1 * (h1 + h2)))
            weights = _sums([*weights, 0.0], [q, -q * (1.0 + a), q * a])
        if len(before) > 2:
            h3 = before[2]
            k = h1 * (h1 + h2) / (h2 * (h2 + h3))
            p = 0.5 * (1.0 - big_a) + (1.0 - 0.5 * h / (h + h1)) * h / (6.0 * (h + h1 + h2))
            p *= h * (h + h1) * (h + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3))
            third = [p, -p * (1.0 + a + k), p * (a + k * (1.0 + h2 / h3)), -p * k * a]
            weights = _sums([*weights, 0.0], third)
        return [h * w for w in weights]


class DEIS(_InNoiseToSignal):
    """DEIS: the slope in ``n = sigma/alpha``, extrapolated by a polynomial in the time of VP paths.

    ``z' = z + sum_j w_j e_j`` with ``w_j = int_n^{n'} prod_{k != j} (t(m) - t_k)/(t_j - t_k) dm``,
    where t(m) is the time of a VP path (:class:`VPLevels`): the exponential integrator tAB of VP
    paths, on any path. rhoAB has polynomials in n itself, and is :class:`AdamsBashforth` in n. The
    published "tAB3" counts the degree of the polynomial: it is order 4 here.

    Args:
        order: Number of slopes, 1 to 4.
        in_time: Polynomials in the VP time (tAB), else in sigma/alpha (rhoAB).
        sigma_min, sigma_max, epsilon_s: The VP path is the one whose sigma/alpha is ``sigma_max``
            at t = 1 and ``sigma_min`` at ``epsilon_s``, whatever the time grid is.

    Source: Zhang & Chen, DEIS, 2022, arXiv 2204.13902, eq. 14 and 15; the fitted VP path is that of
    zju-pi/diff-sampler, which sums over 10,000 points where the integrals are exact here (its
    weights differ by 1e-5).
    """

    def __init__(
        self,
        *,
        order: int = 4,
        in_time: bool = True,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        epsilon_s: float = 1e-3,
        final_euler: bool = True,
        **stepping: Unpack[SteppingInTime],
    ) -> None:
        super().__init__(order=order, final_euler=final_euler, **stepping)
        if not 0.0 < sigma_min < sigma_max:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max, got sigma_min={sigma_min}, sigma_max={sigma_max}"
            )
        if not 0.0 < epsilon_s < 1.0:
            raise ValueError(f"epsilon_s is {epsilon_s}; expected a number in (0, 1)")
        self.in_time = in_time
        self.levels = VPLevels.between(
            sigma_min=sigma_min, sigma_max=sigma_max, epsilon_s=epsilon_s
        )

    def default_grid(self) -> TimeGrid:
        return VPGrid()

    def weights(self, nodes: Sequence[float], end: float) -> list[float]:
        if not self.in_time or len(nodes) == 1:
            return adams_weights(nodes, end)
        times = self.levels.time(torch.tensor(nodes, dtype=torch.float64)).tolist()
        # t(n) grows like n at first and like sqrt(log n) later: smooth in asinh(n).
        points, lengths = _gauss_legendre()
        low, high = np.arcsinh(nodes[0]), np.arcsinh(end)
        s = torch.from_numpy(low + (high - low) * points)
        measure = torch.from_numpy((high - low) * lengths) * torch.cosh(s)
        t = self.levels.time(torch.sinh(s))
        weights = []
        for j, own in enumerate(times):
            basis = measure
            for other in times[:j] + times[j + 1 :]:
                basis = basis * (t - other) / (own - other)
            weights.append(float(basis.sum()))
        return weights


def _sums(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x + y for x, y in zip(a, b, strict=True)]


@cache
def _gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    """Points and lengths on [0, 1]."""
    points, lengths = np.polynomial.legendre.leggauss(_QUADRATURE_POINTS)
    return 0.5 * (1.0 + points), 0.5 * lengths
