"""Dynamic thresholding of predicted data."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.guidance.base import Guidance, NoGuidance
from flowexp.models import Evaluation, Model, WrappedModel
from flowexp.paths import Prediction
from flowexp.requirements import Parts, Unmet, all_of, on_pixels, within

__all__ = ["DynamicThresholding"]

_SMALLEST_NSR = 1e-3


class DynamicThresholding(Guidance):
    """``D' = clip(D, -s, s) / s`` with s the ``quantile`` of |D| within the sample, at least 1.

    For data in [-1, 1]: a sample whose predicted data stay inside is left as it is. Velocity and
    noise are those of D', hence infinite where sigma = 0, so that samplers evaluate the model at
    sigma/alpha of 0.001 or more.

    Args:
        quantile: In (0, 1]; 1 = the largest magnitude.
        guidance: What guides the model before; None = nothing.

    Source: Saharia et al., Imagen, 2022, arXiv 2205.11487, section 2.3; quantile 0.995 in
    DPM-Solver++ (Lu et al., 2022, arXiv 2211.01095) and zju-pi/diff-sampler.
    """

    def __init__(self, *, quantile: float = 0.995, guidance: Guidance | None = None) -> None:
        if not 0.0 < quantile <= 1.0:
            raise ValueError(f"quantile is {quantile}; expected a number in (0, 1]")
        self.quantile = float(quantile)
        self.guidance = NoGuidance() if guidance is None else guidance

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Images, a sampler that asks for predictions at one time, and the inner guidance's."""
        name = f"{type(self).__name__} clips predicted data to the range of images"
        images = on_pixels(parts, name=name, remedy="Leave it out.")
        inner = within("guidance", self.guidance.needs(parts))
        yield from all_of(images, self._predictions(parts), inner)

    def _predictions(self, parts: Parts) -> Iterator[Unmet]:
        if parts.sampler.jumps:
            own, other = type(self).__name__, type(parts.sampler).__name__
            problem = f"{own} clips the data predicted at one time, but {other} jumps between two."
            yield Unmet(".", problem, "Use an ODE sampler such as sampler=heun, or guidance=none.")

    def wrap(self, model: Model) -> Model:
        return _ThresholdedModel(self.guidance.wrap(model), self.quantile)


class _ThresholdedModel(WrappedModel):
    """The model of :class:`DynamicThresholding`."""

    def __init__(self, model: Model, quantile: float) -> None:
        super().__init__(model)
        self.quantile = quantile
        low, high = model.time_range
        smallest = torch.tensor(_SMALLEST_NSR, dtype=torch.float64)
        self.time_range = max(low, float(model.path.schedule.time_at_nsr(smallest))), high

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        return self._thresholded(t, x_t, self.model.predict(x_t, t, **conditions))

    def at(self, times: Tensor) -> list[Evaluation]:
        evaluations = zip(times.unbind(), self.model.at(times), strict=True)
        return [partial(self._evaluate, t, evaluate) for t, evaluate in evaluations]

    def _evaluate(
        self, t: Tensor, evaluate: Evaluation, /, x_t: Tensor, **conditions: Tensor | None
    ) -> Prediction:
        return self._thresholded(t, x_t, evaluate(x_t, **conditions))

    def _thresholded(self, t: Tensor, x_t: Tensor, prediction: Prediction) -> Prediction:
        data = prediction.data
        s = expand_as(_quantile(data.abs().flatten(1), self.quantile).clamp(min=1.0), data)
        return Prediction.of_data(self.path, x_t, t, torch.clamp(data, -s, s) / s)

    def alongside(self, other: Model) -> Model:
        return _ThresholdedModel(self.model.alongside(other), self.quantile)


def _quantile(values: Tensor, q: float) -> Tensor:
    """Of each row, between neighbours linearly; torch.quantile refuses large batches."""
    ordered = values.sort(dim=1).values
    place = q * (values.shape[1] - 1)
    below = int(place)
    above = min(below + 1, values.shape[1] - 1)
    return torch.lerp(ordered[:, below], ordered[:, above], place - below)
