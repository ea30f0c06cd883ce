"""Explicit Runge-Kutta methods with fixed steps."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Unpack

import torch
from torch import Tensor

from flowexp.requirements import Parts, Unmet, within
from flowexp.samplers.field import Field, Interval, Intervals, Node, States
from flowexp.samplers.fixed_step import FixedStepSampler, Stepping
from flowexp.samplers.perturbations import Perturbation
from flowexp.seeding import Noise

__all__ = [
    "RK4",
    "Euler",
    "Heun",
    "Heun3",
    "Midpoint",
    "Ralston",
    "RungeKutta",
    "SecondOrder",
    "Tableau",
    "ThreeEighths",
]

_ROUNDING = 1e-12


class _Stages(Stepping, total=False):
    """The arguments of :class:`RungeKutta` that its subclasses pass on."""

    perturbation: Perturbation | None


@dataclass(frozen=True)
class Tableau:
    """Butcher tableau of an explicit method.

    ``k_i = f(z + h sum_j a_ij k_j, u + c_i h)``, ``z_next = z + h sum_i b_i k_i``.

    Attributes:
        a: Rows of the lower triangle, from the second stage on, of lengths 1, 2, ...
        b: Weights of the slopes; they sum to 1.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = [len(row) for row in self.a]
        if lengths != list(range(1, len(self.b))):
            raise ValueError(f"a has rows of lengths {lengths}; expected 1 .. {len(self.b) - 1}")
        if abs(sum(self.b) - 1.0) > _ROUNDING:
            raise ValueError(f"b sums to {sum(self.b)}; expected 1")

    @property
    def c(self) -> tuple[float, ...]:
        """Nodes ``c_i = sum_j a_ij``."""
        sums = (0.0, *(sum(row) for row in self.a))
        # A node of 1 must be the interval's own end, not a rounding away from it.
        return tuple(1.0 if abs(s - 1.0) < _ROUNDING else s for s in sums)

    @cached_property
    def sums(self) -> list[list[tuple[int, float]]]:
        """Of each further stage and of the step: which slopes it adds, with their weights."""
        return [[(j, w) for j, w in enumerate(row) if w != 0.0] for row in (*self.a, self.b)]


def second_order(alpha: float) -> Tableau:
    """The second-order method with its second evaluation at the fraction ``alpha`` of the step.

    ``k2 = f(z + a h k1, u + a h)``, ``z + h [(1 - 1/(2a)) k1 + k2/(2a)]`` with a in (0, 1]: 1 is
    Heun's method, 1/2 the midpoint rule, 2/3 Ralston's.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, algorithm 3.
    """
    if not 0.0 < alpha <= 1.0:
        raise ValueError(f"alpha is {alpha}; expected a number in (0, 1]")
    weight = 0.5 / alpha
    return Tableau(((float(alpha),),), (1.0 - weight, weight))


class RungeKutta(FixedStepSampler):
    """An explicit Runge-Kutta method; a subclass gives the tableau.

    Args:
        final_euler: Whether the step that reaches t = 0 is Euler's: True = yes (EDM's rule), False
            = a full step, None = only where a full step would evaluate the model outside its range.
            A grid that ends above 0 has full steps only.
        perturbation: Change of the state before each step; None = none.
    """

    tableau: Tableau

    def __init__(
        self,
        *,
        final_euler: bool | None = None,
        perturbation: Perturbation | None = None,
        **stepping: Unpack[Stepping],
    ) -> None:
        super().__init__(**stepping)
        if perturbation is not None and self.analytic_first_step:
            raise ValueError(
                "analytic_first_step is true, but a perturbation changes the state before the "
                "first step; set it to false, or take no perturbation"
            )
        self.final_euler = final_euler
        self.perturbation = perturbation
        self.needs_gaussian = perturbation is not None and perturbation.needs_gaussian

    def noise_needs(self, parts: Parts) -> Iterator[Unmet]:
        """What the perturbation needs."""
        if self.perturbation is not None:
            yield from within("perturbation", self.perturbation.needs(parts))

    @property
    def adds_noise(self) -> bool:
        return self.perturbation is not None

    def describe(self) -> str:
        disturbed = "" if self.perturbation is None else f", {self.perturbation.describe()}"
        return super().describe() + disturbed

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        moves = None
        if self.perturbation is not None:
            if noise is None:
                name = type(self.perturbation).__name__
                raise ValueError(f"{name} needs noise, but noise is None")
            moves = self.perturbation.moves(field, intervals)
            intervals = [move.interval for move in moves]
        stages = [field.all_between(intervals, c) for c in self.tableau.c[1:]]
        for i, interval in enumerate(intervals):
            if moves is not None and noise is not None:
                z = moves[i].apply(z, noise)
            z = self._step(field, z, interval, [nodes[i] for nodes in stages])
            yield z

    def step(self, field: Field, z: Tensor, interval: Interval, noise: Noise | None) -> Tensor:
        nodes = [field.all_between([interval], c)[0] for c in self.tableau.c[1:]]
        return self._step(field, z, interval, nodes)

    def _step(self, field: Field, z: Tensor, interval: Interval, nodes: list[Node]) -> Tensor:
        h = interval.length
        slopes = [field.slope(z, interval.start)]
        if (
            nodes
            and interval.reaches_data
            and self.ends_in_euler(field, nodes, final_euler=self.final_euler)
        ):
            return torch.add(z, slopes[0], alpha=h)
        rows = self.tableau.sums
        for node, row in zip(nodes, rows, strict=False):
            slopes.append(field.slope(_advance(z, slopes, row, h), node))
        return _advance(z, slopes, rows[-1], h)


def _advance(z: Tensor, slopes: list[Tensor], row: list[tuple[int, float]], h: float) -> Tensor:
    """``z + h sum_j w_j k_j`` with one allocation."""
    (first, weight), *rest = row
    out = torch.add(z, slopes[first], alpha=h * weight)
    for j, w in rest:
        out.add_(slopes[j], alpha=h * w)
    return out


class Euler(RungeKutta):
    """Euler's method, order 1, one evaluation per step: ``z + h k1``."""

    tableau = Tableau((), (1.0,))

    # It takes no ``final_euler``: all its steps are Euler's.
    def __init__(self, **stages: Unpack[_Stages]) -> None:
        super().__init__(final_euler=None, **stages)


class Heun(RungeKutta):
    """Heun's method (explicit trapezoid), order 2: ``z + h (k1 + k2)/2``, k2 at the step's end.

    With ``final_euler``, its default, the step to t = 0 is Euler's: N steps cost 2N - 1
    evaluations. Arguments of :class:`RungeKutta`.
    """

    tableau = second_order(1.0)

    def __init__(self, *, final_euler: bool | None = True, **stages: Unpack[_Stages]) -> None:
        super().__init__(final_euler=final_euler, **stages)


class SecondOrder(RungeKutta):
    """EDM's family of second-order methods, two evaluations per step; see :func:`second_order`.

    Args:
        alpha: Place of the second evaluation, in (0, 1]: 1 = Heun, 1/2 = midpoint, 2/3 = Ralston.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, algorithm 3.
    """

    def __init__(
        self, *, alpha: float, final_euler: bool | None = True, **stages: Unpack[_Stages]
    ) -> None:
        self.tableau = second_order(alpha)
        super().__init__(final_euler=final_euler, **stages)


class Midpoint(RungeKutta):
    """The midpoint rule, order 2: ``z + h k2``, k2 half way; arguments of :class:`RungeKutta`."""

    tableau = second_order(0.5)


class Ralston(RungeKutta):
    """Ralston's second-order method; arguments of :class:`RungeKutta`.

    Source: Ralston, Runge-Kutta Methods with Minimum Error Bounds, 1962.
    """

    tableau = second_order(2.0 / 3.0)


class Heun3(RungeKutta):
    """Heun's third-order method, three evaluations per step; arguments of :class:`RungeKutta`."""

    tableau = Tableau(((1.0 / 3.0,), (0.0, 2.0 / 3.0)), (0.25, 0.0, 0.75))


class RK4(RungeKutta):
    """The classical fourth-order method, four evaluations; arguments of :class:`RungeKutta`.

    Source: Kutta, 1901. What torchdiffeq calls "rk4" is :class:`ThreeEighths`.
    """

    tableau = Tableau(
        ((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0)
    )


class ThreeEighths(RungeKutta):
    """Kutta's 3/8 rule, order 4 (torchdiffeq's "rk4"); arguments of :class:`RungeKutta`.

    Source: Kutta, 1901.
    """

    tableau = Tableau(
        ((1.0 / 3.0,), (-1.0 / 3.0, 1.0), (1.0, -1.0, 1.0)), (0.125, 0.375, 0.375, 0.125)
    )
