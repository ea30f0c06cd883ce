"""Stochastic samplers with the marginals of the probability-flow ODE.

For any ``w(t) >= 0`` the reverse SDE ``dx = (v - w s) dt + sqrt(2 w) dW``, run from the source to
the data with the score s, has the path's marginals. A step from t to t - h is
``x <- x + h (-v + w s) + sqrt(2 w h) n``.

Source: Ma et al., SiT, 2024, arXiv 2401.08740, eq. 4 and section 3; w is that of their code, half
of the paper's.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.paths import Prediction
from flowexp.requirements import Parts, UnknownError, Unmet, all_of
from flowexp.samplers.base import TimeGrid, known_times
from flowexp.samplers.diffusions import Diffusion
from flowexp.samplers.field import Field, Intervals, Node, States
from flowexp.samplers.fixed_step import FixedStepSampler
from flowexp.seeding import Noise

__all__ = ["SDE", "EulerLast", "EulerMaruyama", "LastStep", "MeanLast", "SDEHeun", "TweedieLast"]

# The stability limit of Euler's and Heun's method: beyond it a step enlarges what it should remove.
_LARGEST_RATE = 2.0


class LastStep(ABC):
    """The step from the grid's last time to t = 0, without noise."""

    @abstractmethod
    def __call__(self, prediction: Prediction, t: Tensor, w: Tensor) -> Tensor:
        """The state at 0 from the prediction at ``t``, where the diffusion is ``w``."""


class MeanLast(LastStep):
    """One step of the SDE without its noise: ``x + t (-v + w s)``."""

    def __call__(self, prediction: Prediction, t: Tensor, w: Tensor) -> Tensor:
        return prediction.x_t + t * (w * prediction.score - prediction.velocity)


class TweedieLast(LastStep):
    """The denoised state, ``(x + sigma^2 s) / alpha``."""

    def __call__(self, prediction: Prediction, t: Tensor, w: Tensor) -> Tensor:
        return prediction.data


class EulerLast(LastStep):
    """One Euler step of the ODE: ``x - t v``."""

    def __call__(self, prediction: Prediction, t: Tensor, w: Tensor) -> Tensor:
        return prediction.x_t - t * prediction.velocity


@dataclass(frozen=True, slots=True)
class SDENode:
    """A time of the grid and the diffusion there.

    Attributes:
        node: The time, and the model there.
        w: The diffusion coefficient.
        pull: ``w / sigma``: the score's part of the drift is ``-pull`` times the noise.
        field: The model's conditions.
    """

    node: Node
    w: float
    pull: float
    field: Field

    def drift(self, x: Tensor) -> Tensor:
        """``-v + w s``: the drift towards the data, one evaluation."""
        return self.field.predict(x, self.node).towards_data(w=self.w, pull=self.pull)


class SDE(FixedStepSampler):
    """Steps of the SDE down a time grid, then a last step without noise.

    A step of the SDE that ends at 0 would add noise that nothing removes, so the grid ends at
    ``t_end > 0``, from where ``last_step`` goes to 0. With ``last_step = None`` all steps are the
    SDE's and sampling ends where the grid ends.

    Args:
        steps: Number of steps in all, the last one included; at least one is the SDE's.
        time_grid: The times at which the steps begin; its ``t_end`` is the size of the last step.
        diffusion: The coefficient w(t).
        last_step: The step from t_end to 0; None = sampling ends at the end of the grid.
    """

    needs_gaussian = True

    def __init__(
        self,
        *,
        steps: int,
        time_grid: TimeGrid,
        diffusion: Diffusion,
        last_step: LastStep | None = None,
        double: bool = True,
    ) -> None:
        smallest = 1 if last_step is None else 2
        if steps < smallest:
            raise ValueError(f"steps is {steps}; expected at least {smallest}")
        super().__init__(steps=steps, time_grid=time_grid, double=double)
        self.diffusion = diffusion
        self.last_step = last_step

    def noise_needs(self, parts: Parts) -> Iterator[Unmet]:
        """A Gaussian source, unless the model has a score of its own."""
        try:
            scored = parts.parameterization.score_head
        except UnknownError:
            scored = False
        if not scored:
            yield from super().noise_needs(parts)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A grid that ends above 0, where the last step begins."""
        yield from all_of(super().needs(parts), self._last_start())

    def _last_start(self) -> Iterator[Unmet]:
        if self.last_step is not None and self.time_grid.ends_at_zero:
            grid, last = type(self.time_grid).__name__, type(self.last_step).__name__
            problem = f"{grid} ends at t=0, but {last} goes to 0 from its end."
            remedy = self.time_grid.above_zero
            yield Unmet(".time_grid", problem, f"{remedy[0].upper()}{remedy[1:]}.")

    @abstractmethod
    def advance(self, x: Tensor, start: SDENode, end: SDENode, n: Tensor) -> Tensor:
        """The state at ``end`` from the state ``x`` at ``start``, with standard normal ``n``."""

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        if noise is None:
            raise ValueError(f"{type(self).__name__} adds noise at each step, but noise is None")
        nodes = [intervals[0].start, *(interval.end for interval in intervals)]
        noisy = nodes if self.last_step is None else nodes[:-1]
        times = torch.tensor([node.time for node in noisy], dtype=torch.float64)
        w = self.diffusion(field.schedule, times)
        pull = w / field.schedule.coefficients(times).sigma
        rows = zip(noisy, w.tolist(), pull.tolist(), strict=True)
        for i, (start, end) in enumerate(pairwise([SDENode(*row, field) for row in rows])):
            z = self.advance(z, start, end, noise(i, z))
            yield z
        if self.last_step is not None:
            t = noisy[-1].t
            prediction = field.model.predict(z, t, **field.conditions)
            yield self.last_step(prediction, t, self.diffusion(field.schedule, t))

    def times(self, model: Model) -> Tensor:
        """The grid's times, and 0 after them if there is a last step.

        A ValueError if the diffusion is infinite or the last step begins outside the model's range.
        """
        within = self.steps if self.last_step is None else self.steps - 1
        times = self.time_grid.times(model, within)
        low, _ = model.time_range
        end = float(times[-1])
        if self.last_step is not None and not (end > 0.0 and end >= low):
            raise ValueError(
                f"{self.time_grid!r} ends at t={end:g}, where {type(self.last_step).__name__} has "
                f"to evaluate the model, which is defined from {low:g}; "
                f"{self._later_end(low)}, or delete ~sampler/last_step"
            )
        times = known_times(model, times)
        if not all(map(math.isfinite, self._rates(model, times))):
            start = self._first_stable(model, times) or 0.99 * float(times[0])
            raise ValueError(
                f"{self.diffusion!r} is infinite at the start, t={float(times[0]):g}, of "
                f"{model.path.schedule!r}; choose another sampler.diffusion, or start below it: "
                f"{_grid_between(start, end)}"
            )
        return times if self.last_step is None else torch.cat([times, times.new_zeros(1)])

    def check(self, model: Model) -> None:
        """Refuse steps that throw states out of the marginals, too; by a ValueError.

        Such states come back to them when w falls, but a network has never seen them.
        """
        super().check(model)
        times = self.times(model)
        noisy = times if self.last_step is None else times[:-1]
        largest, t = max(zip(self._rates(model, noisy), noisy.tolist(), strict=False))
        if largest > _LARGEST_RATE:
            start = self._first_stable(model, noisy)
            later = f", or start later: {_grid_between(start, float(noisy[-1]))}" if start else ""
            raise ValueError(
                f"{self.diffusion!r} is too large for the step that begins at t={t:g}, which is "
                f"unstable: h w / (alpha^2 + sigma^2) is {largest:.3g}, above {_LARGEST_RATE:g}; "
                f"take more steps or a smaller sampler.diffusion.scale{later}"
            )

    def _rates(self, model: Model, times: Tensor) -> list[float]:
        """``h w / (alpha^2 + sigma^2)`` of every step: the share of x that the score takes away.

        For data of variance 1; at the source, where w may be large, for any data.
        """
        schedule, starts = model.path.schedule, times[:-1]
        c = schedule.coefficients(starts)
        w = self.diffusion(schedule, starts)
        rates: list[float] = (-times.diff() * w / (c.alpha**2 + c.sigma**2)).tolist()
        return rates

    def _first_stable(self, model: Model, times: Tensor) -> float | None:
        """Where the first step begins that takes away no more than all of x; None = nowhere."""
        steps = zip(self._rates(model, times), times.tolist(), strict=False)
        return next((t for rate, t in steps if rate <= 1.0), None)

    def _later_end(self, low: float) -> str:
        """What to do so that the grid does not end below ``low``."""
        if self.time_grid.ends_at_zero or low == 0.0:
            return self.time_grid.above_zero
        return f"end the grid at t={low:g} or above"


def _grid_between(start: float, end: float) -> str:
    return (
        f"sampler/time_grid=power sampler.time_grid.t_start={start:.4g} "
        f"sampler.time_grid.t_end={end:.4g}"
    )


class EulerMaruyama(SDE):
    """The Euler-Maruyama method; one evaluation per step."""

    def advance(self, x: Tensor, start: SDENode, end: SDENode, n: Tensor) -> Tensor:
        """``x + h (-v + w s) + sqrt(2 w h) n``."""
        h = start.node.time - end.node.time
        x = torch.add(x, start.drift(x), alpha=h)
        return x.add_(n, alpha=math.sqrt(2.0 * start.w * h))


class SDEHeun(SDE):
    """Noise first, then a deterministic Heun step of the SDE's drift; two evaluations per step.

    A step that ends below the model's range, where the score has no value, is an Euler step.
    """

    def advance(self, x: Tensor, start: SDENode, end: SDENode, n: Tensor) -> Tensor:
        h = start.node.time - end.node.time
        x = torch.add(x, n, alpha=math.sqrt(2.0 * start.w * h))
        first = start.drift(x)
        ahead = torch.add(x, first, alpha=h)
        if end.node.time == 0.0 or not start.field.defined_at(end.node):
            return ahead
        second = end.drift(ahead)
        return x.add_(first, alpha=0.5 * h).add_(second, alpha=0.5 * h)
