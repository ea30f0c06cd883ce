"""Methods that use the model's outputs at earlier noise levels.

They take steps in half the log-SNR, ``lambda = log(alpha / sigma)``, which grows from the source to
the data and in which the linear part of the ODE is solved exactly. A step is linear in the state
and in the remembered outputs, so that a walk is planned in advance (all weights, from the levels
alone) and then executed.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Unpack

from torch import Tensor

from flowexp.paths import Prediction
from flowexp.samplers.base import ROUNDING, TimeGrid
from flowexp.samplers.field import Field, Intervals, Node, States
from flowexp.samplers.fixed_step import FixedStepSampler, SteppingInTime
from flowexp.samplers.noise_grids import half_log_snr
from flowexp.seeding import Noise

__all__ = ["LinearMultistepSampler", "MultistepSampler"]

_SERIES_BELOW = 1.0
_TERMS = 20

Update = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""``(x at the step's start, remembered outputs, newest first)`` to x at its end, a new tensor."""

Remember = Callable[[Prediction, Tensor], Tensor]
"""``(prediction at x, x)`` to the output that is kept."""


@dataclass(frozen=True, slots=True)
class Level:
    """A noise level: ``lam = log(alpha / sigma)`` is infinite where one of them is 0."""

    time: float
    alpha: float
    sigma: float
    lam: float

    @classmethod
    def of(cls, time: float, alpha: float, sigma: float) -> "Level":
        """The level with these coefficients, of which rounding may miss a 0."""
        if alpha <= ROUNDING * sigma:
            return cls(time, 0.0, sigma, -math.inf)
        if sigma <= ROUNDING * alpha:
            return cls(time, alpha, 0.0, math.inf)
        return cls(time, alpha, sigma, math.log(alpha / sigma))

    @property
    def is_finite(self) -> bool:
        """Whether both data and noise are present."""
        return math.isfinite(self.lam)


def levels_of(field: Field, nodes: Sequence[Node]) -> list[Level]:
    """The levels of nodes."""
    return [Level.of(n.time, *c) for n, c in zip(nodes, field.levels(nodes), strict=True)]


@dataclass(frozen=True, slots=True)
class Weights:
    """The update ``x' = state x + sum_i outputs_i m_i``; ``m_0`` is the newest output."""

    state: float
    outputs: tuple[float, ...]

    def __call__(self, x: Tensor, memory: Sequence[Tensor]) -> Tensor:
        """The new state; outputs beyond the last weight are not used."""
        z = x * self.state
        for weight, output in zip(self.outputs, memory, strict=False):
            z.add_(output, alpha=weight)
        return z


@dataclass(frozen=True, slots=True)
class Step:
    """One planned step.

    Attributes:
        remember: The output that is kept of the prediction at the step's start.
        predict: The state at the end.
        correct: The state at the end once the output there is known (then the newest in memory);
            None = as predicted.
    """

    remember: Remember
    predict: Update
    correct: Update | None = None


class Rule(ABC):
    """A multistep method: which outputs it keeps, and its steps between finite levels."""

    @abstractmethod
    def remember(self, level: Level) -> Remember:
        """The output that is kept of the prediction at a finite level."""

    @abstractmethod
    def updates(
        self, nodes: Sequence[Level], end: Level, *, last: bool
    ) -> tuple[Update, Update | None]:
        """Predictor and corrector of a step from ``nodes[0]`` to a finite end.

        ``nodes`` are the levels of the remembered outputs to use, newest first; their number is the
        order. No evaluation follows the last step, so that it cannot be corrected.
        """

    @abstractmethod
    def leave(self, start: Level, end: Level) -> Update:
        """The step of first order from a finite level to one where lambda is infinite."""


def first_order(start: Level, end: Level, *, predicts_data: bool) -> Weights:
    """DDIM's step ``x' = alpha' D + sigma' e`` in terms of x and D (or e).

    At the start, sigma must not be 0 for D, nor alpha for e.
    """
    h = end.lam - start.lam
    finite = math.isfinite(h)
    if predicts_data:
        ratio = end.sigma / start.sigma
        weight = -end.alpha * math.expm1(-h) if finite else end.alpha - start.alpha * ratio
        return Weights(ratio, (weight,))
    ratio = end.alpha / start.alpha
    weight = -end.sigma * math.expm1(h) if finite else end.sigma - start.sigma * ratio
    return Weights(ratio, (weight,))


def _data(prediction: Prediction, x: Tensor) -> Tensor:
    return prediction.data


def _noise(prediction: Prediction, x: Tensor) -> Tensor:
    return prediction.noise


class Multistepping(SteppingInTime, total=False):
    """The arguments of :class:`MultistepSampler` that its subclasses pass on."""

    lower_order_final: bool


class MultistepSampler(FixedStepSampler):
    """A multistep sampler in half the log-SNR; one evaluation per step.

    The order grows with the memory, 1, 2, ...: the first step is of first order. A step that begins
    or ends where lambda is infinite (t = 1 of the linear path, t = 0 where no noise is left) is
    DDIM's, which is exact there in the linear part: the last step to t = 0 is then the data
    prediction at the state ("denoise to zero"), and counts as one evaluation. To stop before it,
    let the time grid end above 0.

    The model is evaluated at the predicted state; a corrector then replaces the state, not the
    output.

    Args:
        order: Highest order, 1 to 3.
        lower_order_final: Let the order fall to 1 towards the end: the last step is of first order,
            the one before of second.
    """

    passes_over_empty = True

    def __init__(
        self, *, order: int, lower_order_final: bool = True, **stepping: Unpack[SteppingInTime]
    ) -> None:
        super().__init__(variable=None, **stepping)
        if order not in (1, 2, 3):
            raise ValueError(f"order is {order}; expected 1, 2 or 3")
        self.order = order
        self.lower_order_final = lower_order_final
        self._planned: tuple[object, list[Step]] | None = None

    def default_grid(self) -> TimeGrid:
        return half_log_snr()

    @abstractmethod
    def rule(self, field: Field) -> Rule:
        """The method, on one model."""

    def depends_on(self, field: Field) -> object:
        """The key of the cached plan besides the levels; compared with ``==``."""
        return None

    def plan(self, field: Field, nodes: Sequence[Node]) -> list[Step]:
        """The steps between neighbouring nodes; the last plan is cached, as batches share it."""
        levels = levels_of(field, nodes)
        key = (levels, self.depends_on(field))
        if self._planned is None or self._planned[0] != key:
            self._planned = (key, self._steps(self.rule(field), levels))
        return self._planned[1]

    def _steps(self, rule: Rule, levels: Sequence[Level]) -> list[Step]:
        count = len(levels) - 1
        known: list[Level] = []
        steps = []
        for left, (start, end) in zip(range(count, 0, -1), pairwise(levels), strict=True):
            if not start.is_finite:
                only_noise = start.alpha == 0.0
                update = first_order(start, end, predicts_data=only_noise)
                steps.append(Step(_data if only_noise else _noise, update))
                continue
            known = [start, *known][: self.order]
            remember = rule.remember(start)
            if not end.is_finite:
                steps.append(Step(remember, rule.leave(start, end)))
                continue
            order = min(len(known), left) if self.lower_order_final else len(known)
            steps.append(Step(remember, *rule.updates(known[:order], end, last=left == 1)))
        return steps

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        steps = self.plan(field, [intervals[0].start, *(i.end for i in intervals)])
        memory: deque[Tensor] = deque(maxlen=self.order + 1)
        memory.appendleft(steps[0].remember(field.predict(z, intervals[0].start), z))
        for interval, step, following in zip(intervals, steps, [*steps[1:], None], strict=True):
            before, z = z, step.predict(z, memory)
            if following is not None:
                memory.appendleft(following.remember(field.predict(z, interval.end), z))
                if step.correct is not None:
                    z = step.correct(before, memory)
            yield z


class LinearMultistepSampler(MultistepSampler, Rule):
    """A multistep sampler with one number as the weight of each remembered output.

    Args:
        predicts_data: Whether the outputs are predicted data; else noise.
    """

    def __init__(
        self, *, order: int, predicts_data: bool = True, **stepping: Unpack[Multistepping]
    ) -> None:
        super().__init__(order=order, **stepping)
        self.predicts_data = predicts_data

    def rule(self, field: Field) -> Rule:
        return self

    def remember(self, level: Level) -> Remember:
        return _data if self.predicts_data else _noise

    def leave(self, start: Level, end: Level) -> Weights:
        return first_order(start, end, predicts_data=self.predicts_data)


def phi(k: int, z: float) -> float:
    """``phi_k(z) = sum_j z^j / (j + k)!``: ``phi_0 = exp``, ``phi_{k+1} = (phi_k - 1/k!) / z``.

    ``int_0^1 exp((1 - u) z) u^k / k! du = phi_{k+1}(z)``, which is the weight of a k-th derivative
    in a step. Near 0 the recursion cancels, so the series is summed there. z may be minus infinity.

    Source: Hochbruck & Ostermann, Exponential integrators, 2010, eq. 2.10 and 2.11.
    """
    if abs(z) < _SERIES_BELOW:
        return math.fsum(z**j / math.factorial(j + k) for j in range(_TERMS))
    value = math.exp(z)
    for j in range(k):
        value = (value - 1.0 / math.factorial(j)) / z
    return value
