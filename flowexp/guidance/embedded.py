"""Guidance as an input of the network, which was trained with it."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from flowexp.guidance.base import Guidance
from flowexp.models import Evaluation, Model, WrappedModel
from flowexp.paths import Prediction
from flowexp.requirements import Parts, Unmet

__all__ = ["Embedded"]


class Embedded(Guidance):
    """The scale w and the guided interval of t as inputs of the network: one evaluation per call.

    Predictions at one time have scale w inside the interval and 1 outside, as rows with r = t in
    training.

    Args:
        scale: w, at least 1; 1 = not guided. Above the largest scale in training the network
            extrapolates.
        interval: (low, high), the interval of t that is guided, 0 <= low < high <= 1.

    Raises:
        ValueError: scale or interval is out of range.

    Source: Geng et al., improved MeanFlow, 2025, arXiv 2512.02012: B/2 is evaluated with scale 8
    and interval [0.4, 0.65], found by a search on FID.
    """

    def __init__(self, *, scale: float, interval: Sequence[float] = (0.0, 1.0)) -> None:
        if not 1.0 <= scale < math.inf:
            raise ValueError(f"scale is {scale}; expected a finite number >= 1")
        if len(interval) != 2 or not 0.0 <= interval[0] < interval[1] <= 1.0:
            raise ValueError(f"interval is {list(interval)}; expected [low, high] within [0, 1]")
        self.scale = float(scale)
        self.low = float(interval[0])
        self.high = float(interval[1])

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network trained with the scale as an input, and with the interval if one is set."""
        inputs = parts.parameterization.conditions_on
        if "guidance_scale" not in inputs:
            problem = "Embedded needs a model trained with the guidance scale as an input."
            yield Unmet(".", problem, "Use guidance=cfg or guidance=none.")
        elif "guidance_start" not in inputs and (self.low > 0.0 or self.high < 1.0):
            problem = (
                f"[{self.low:g}, {self.high:g}] is set, but the model was not trained with the "
                f"interval as an input."
            )
            yield Unmet(".interval", problem, "Set guidance.interval=[0,1].")

    def wrap(self, model: Model) -> Model:
        """The model at this scale."""
        return _EmbeddedModel(model, self)


class _EmbeddedModel(WrappedModel):
    """The model of :class:`Embedded`."""

    def __init__(self, model: Model, guidance: Embedded) -> None:
        super().__init__(model)
        self.guidance = guidance

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        return self.model.predict(x_t, t, **conditions, **self._instant(x_t, t))

    def at(self, times: Tensor) -> list[Evaluation]:
        evaluations = zip(self.model.at(times), times.unbind(), strict=True)
        return [partial(self._evaluate, evaluate, t) for evaluate, t in evaluations]

    def _evaluate(
        self, evaluate: Evaluation, t: Tensor, /, x_t: Tensor, **conditions: Tensor | None
    ) -> Prediction:
        return evaluate(x_t, **conditions, **self._instant(x_t, t))

    def average_velocity(
        self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None
    ) -> Tensor:
        inputs = self._inputs(x_t, self.guidance.scale, self.guidance.low, self.guidance.high)
        equal = (t == r).to(x_t.device).expand(len(x_t))
        now = self._instant(x_t, t)
        inputs = {name: torch.where(equal, now[name], value) for name, value in inputs.items()}
        return self.model.average_velocity(x_t, t, r, **conditions, **inputs)

    def _instant(self, x_t: Tensor, t: Tensor) -> dict[str, Tensor]:
        """The guidance inputs for predictions at one time t: the scale there, and [0, 1]."""
        inputs = self._inputs(x_t, self.guidance.scale, 0.0, 1.0)
        t = t.to(x_t.device).expand(len(x_t))
        inside = (t >= self.guidance.low) & (t <= self.guidance.high)
        inputs["guidance_scale"] = torch.where(inside, inputs["guidance_scale"], 1.0)
        return inputs

    @staticmethod
    def _inputs(x_t: Tensor, scale: float, low: float, high: float) -> dict[str, Tensor]:
        values = {"guidance_scale": scale, "guidance_start": low, "guidance_end": high}
        return {
            name: torch.full((len(x_t),), value, dtype=torch.float64, device=x_t.device)
            for name, value in values.items()
        }

    def alongside(self, other: Model) -> Model:
        return _EmbeddedModel(self.model.alongside(other), self.guidance)
