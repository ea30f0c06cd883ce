"""Stochastic samplers with the marginals of the probability-flow ODE.

For any ``w(t) >= 0`` the reverse SDE ``dx = (v - w s) dt + sqrt(2 w) dW``, run from the source to
the data with the score s, has the path's marginals. A step from t to t - h is
``x <- x + h (-v + w s) + sqrt(2 w h) n``.

Source: Ma et al., SiT, 2024, arXiv 2401.08740, eq. 4 and section 3; w is that of their code, half
of the paper's.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from flowexp.models import Evaluation, Model
from flowexp.paths import Prediction
from flowexp.samplers.base import (
    CountedModel,
    Sampler,
    Samples,
    StepObserver,
    TimeGrid,
    evaluations_of,
    known_times,
)
from flowexp.samplers.diffusions import Diffusion
from flowexp.seeding import Noise

__all__ = [
    "SDE",
    "EulerLast",
    "EulerMaruyama",
    "LastStep",
    "SDENode",
    "MeanLast",
    "SDEHeun",
    "TweedieLast",
]


@dataclass(frozen=True, slots=True)
class SDENode:
    """A time of the grid and what is known there.

    Attributes:
        time: The path's time.
        w: The diffusion coefficient.
        pull: ``w / sigma``: the score's part of the drift is ``-pull`` times the noise.
        evaluate: The model there.
        is_defined: Whether the model is defined there.
    """

    time: float
    w: float
    pull: float
    evaluate: Evaluation
    is_defined: bool


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


class SDE(Sampler):
    """Steps of the SDE down a time grid, then a last step without noise.

    A step of the SDE that ends at 0 would add noise that nothing removes, so the grid ends at
    ``t_end > 0``, from where ``last_step`` goes to 0. With ``last_step = None`` all steps are the
    SDE's and sampling ends where the grid ends.

    Args:
        steps: Number of steps in all, the last one included.
        time_grid: The times at which the steps begin; its ``t_end`` is the size of the last step.
        diffusion: The coefficient w(t).
        last_step: The step from t_end to 0; None = sampling ends at the end of the grid.
        double: Keep the state in float64 between steps; else float32.

    Raises:
        ValueError: Fewer than one step of the SDE.
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
        self.steps = steps
        self.time_grid = time_grid
        self.diffusion = diffusion
        self.last_step = last_step
        self.dtype = torch.float64 if double else torch.float32

    @abstractmethod
    def step(
        self, x: Tensor, start: SDENode, end: SDENode, n: Tensor, **conditions: Tensor | None
    ) -> Tensor:
        """The state at ``end`` from the state ``x`` at ``start``, with standard normal ``n``."""

    @torch.inference_mode()
    def sample(
        self,
        model: Model,
        e: Tensor,
        *,
        noise: Noise | None = None,
        on_step: StepObserver | None = None,
        **conditions: Tensor | None,
    ) -> Samples:
        """Walk the grid from ``sigma(t_0) e`` with the noise of each step, then leave it.

        Raises:
            ValueError: ``noise`` is None, the source is not Gaussian, the diffusion is infinite at
                the start, or the last step does not begin within the model's range.
        """
        self.check_source(model)
        if noise is None:
            raise ValueError(f"{type(self).__name__} adds noise at each step, but noise is None")
        counted = CountedModel(model)
        times = self._times(model).to(e.device)
        x = model.path.start(e.to(self.dtype), times[0])
        _observe(on_step, times[0], x)
        levels = self._levels(counted, times)
        for i, (start, end) in enumerate(pairwise(levels)):
            x = self.step(x, start, end, noise(i, x), **conditions)
            _observe(on_step, times[i + 1], x)
        if self.last_step is not None:
            t = times[-1]
            w = self.diffusion(model.path.schedule, t)
            x = self.last_step(counted.predict(x, t, **conditions), t, w)
            _observe(on_step, torch.zeros_like(t), x)
        return Samples(x.to(e.dtype), evaluations_of(e.shape[0], counted))

    def describe(self) -> str:
        return f"{super().describe()}, {self.steps} steps"

    def drift(self, x: Tensor, level: SDENode, conditions: Mapping[str, Tensor | None]) -> Tensor:
        """``-v + w s``: the drift towards the data, one evaluation."""
        return level.evaluate(x, **conditions).combined(noise=-level.pull, velocity=-1.0)

    def _levels(self, model: Model, times: Tensor) -> list[SDENode]:
        listed = times.tolist()
        schedule, here = model.path.schedule, times.cpu()
        w = self.diffusion(schedule, here)
        pull = w / schedule.coefficients(here).sigma
        low, _ = model.time_range
        defined = [t > 0.0 and t >= low for t in listed]
        rows = zip(listed, w.tolist(), pull.tolist(), model.at(times), defined, strict=True)
        return [SDENode(*row) for row in rows]

    def _times(self, model: Model) -> Tensor:
        within = self.steps if self.last_step is None else self.steps - 1
        times = self.time_grid.times(model, within)
        low, _ = model.time_range
        end = float(times[-1])
        if self.last_step is not None and not (end > 0.0 and end >= low):
            raise ValueError(
                f"{self.time_grid!r} ends at t={end:g}, where {type(self.last_step).__name__} has "
                f"to evaluate the model, which is defined from {low:g}; set "
                f"sampler.time_grid.t_end above it, or delete ~sampler/last_step"
            )
        times = known_times(model, times)
        w = self.diffusion(model.path.schedule, times[:-1])
        if not bool(torch.isfinite(w).all()):
            raise ValueError(
                f"{self.diffusion!r} is infinite at the start, t={float(times[0]):g}, of "
                f"{model.path.schedule!r}; choose another sampler.diffusion, or path.schedule.t_max"
                f" below it"
            )
        return times


class EulerMaruyama(SDE):
    """The Euler-Maruyama method; one evaluation per step."""

    def step(
        self, x: Tensor, start: SDENode, end: SDENode, n: Tensor, **conditions: Tensor | None
    ) -> Tensor:
        """``x + h (-v + w s) + sqrt(2 w h) n``."""
        h = start.time - end.time
        x = torch.add(x, self.drift(x, start, conditions), alpha=h)
        return x.add_(n, alpha=math.sqrt(2.0 * start.w * h))


class SDEHeun(SDE):
    """Noise first, then a deterministic Heun step of the SDE's drift; two evaluations per step.

    A step that ends below the model's range, where the score has no value, is an Euler step.
    """

    def step(
        self, x: Tensor, start: SDENode, end: SDENode, n: Tensor, **conditions: Tensor | None
    ) -> Tensor:
        h = start.time - end.time
        x = torch.add(x, n, alpha=math.sqrt(2.0 * start.w * h))
        first = self.drift(x, start, conditions)
        ahead = torch.add(x, first, alpha=h)
        if not end.is_defined:
            return ahead
        second = self.drift(ahead, end, conditions)
        return x.add_(first, alpha=0.5 * h).add_(second, alpha=0.5 * h)


def _observe(on_step: StepObserver | None, t: Tensor, x: Tensor) -> None:
    if on_step is not None:
        on_step(t, x)
