"""Classifier-free guidance."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from flowexp.guidance.base import Guidance
from flowexp.models import Evaluation, Model, WrappedModel
from flowexp.networks.base import LABELLING, without_labels
from flowexp.parameterizations import Conditions
from flowexp.paths import Prediction
from flowexp.requirements import Parts, Unmet, all_of, on_dropped_labels, on_labels

__all__ = ["ClassifierFree"]


class ClassifierFree(Guidance):
    """``v = v_u + scale (v_c - v_u)`` with the conditional and unconditional velocities.

    Data and noise are combined likewise, since all are affine in the network's output with the same
    coefficients. Both are evaluated as one doubled batch, at two evaluations per sample. scale = 1
    is the conditional model, at one evaluation; 0 is the unconditional one; in between the two are
    interpolated (InstaFlow's code uses the conditional model up to 1).

    Args:
        scale: 1 = conditional, above 1 = guided; finite.
        channels: Number of leading output channels that are guided, >= 1; the others stay
            conditional. None = all. DiT, SiT and FlowTurbo guide the first 3 of their 4 latent
            channels.

    Source: Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, arXiv 2207.12598, eq. 6; their
    w is scale - 1. ``channels=3`` is what the code of DiT (Peebles & Xie, 2022, arXiv 2212.09748)
    does "for exact reproducibility".
    """

    def __init__(self, *, scale: float, channels: int | None = None) -> None:
        if not math.isfinite(scale):
            raise ValueError(f"scale is {scale}; expected a finite number")
        if channels is not None and channels < 1:
            raise ValueError(f"channels is {channels}; expected a positive number or null")
        self.scale = float(scale)
        self.channels = channels

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network that knows labels and what it gives without, unless there is no guidance."""
        if self.scale != 1.0:
            name, off = type(self).__name__, "use guidance=none"
            yield from all_of(
                on_labels(parts, name=name, remedy="guidance=none"),
                on_dropped_labels(parts, name=name, key=".", remedy=off),
                self._guided_once(parts),
            )

    def _guided_once(self, parts: Parts) -> Iterator[Unmet]:
        if "guidance_scale" in parts.parameterization.conditions_on:
            problem = f"{type(self).__name__} guides a model trained with the scale as an input."
            remedy = f"Use guidance=embedded guidance.scale={self.scale:g}, at half the cost."
            yield Unmet(".", problem, remedy, False)

    def wrap(self, model: Model) -> Model:
        """The guided model; the model itself for scale = 1."""
        if self.scale == 1.0:
            return model
        return _ClassifierFreeModel(model, self)


class _ClassifierFreeModel(WrappedModel):
    """The model of :class:`ClassifierFree`."""

    def __init__(self, model: Model, guidance: ClassifierFree) -> None:
        super().__init__(model)
        self.guidance = guidance
        self.evaluations_per_call *= 2
        self.asks_without_label = True

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        """One call with the batch and, below it, the batch without labels and captions."""
        times = t if t.ndim == 0 else torch.cat([t, t])
        both = self.model.predict(torch.cat([x_t, x_t]), times, **_doubled(conditions))
        guided = self._guided(x_t, both)
        if t.ndim == 0:
            return guided
        half = both.coefficients.map(lambda c: c.chunk(2)[0])
        return replace(guided, conversion=both.conversion.at(half))

    def average_velocity(
        self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None
    ) -> Tensor:
        """Average velocities are combined in the same way, since every jump is affine in F."""
        t, r = (time if time.ndim == 0 else torch.cat([time, time]) for time in (t, r))
        both = self.model.average_velocity(torch.cat([x_t, x_t]), t, r, **_doubled(conditions))
        return self._lerped(both)

    def at(self, times: Tensor) -> list[Evaluation]:
        if times.ndim > 1:
            return super().at(times)
        return [partial(self._evaluate, evaluate) for evaluate in self.model.at(times)]

    def _evaluate(
        self, evaluate: Evaluation, /, x_t: Tensor, **conditions: Tensor | None
    ) -> Prediction:
        return self._guided(x_t, evaluate(torch.cat([x_t, x_t]), **_doubled(conditions)))

    def _guided(self, x_t: Tensor, both: Prediction) -> Prediction:
        return Prediction(self.path, x_t, self._lerped(both.output), both.conversion)

    def _lerped(self, both: Tensor) -> Tensor:
        conditional, unconditional = both.chunk(2)
        guided = torch.lerp(unconditional, conditional, self.guidance.scale)
        channels = self.guidance.channels
        if channels is not None:
            guided = torch.cat([guided[:, :channels], conditional[:, channels:]], dim=1)
        return guided

    def alongside(self, other: Model) -> Model:
        return _ClassifierFreeModel(self.model.alongside(other), self.guidance)


def _doubled(conditions: Conditions) -> dict[str, Tensor | None]:
    """Every condition twice, the second time without labels and captions, which must be given."""
    if all(conditions.get(name) is None for name in LABELLING):
        raise ValueError(
            "classifier-free guidance needs labels or tokens, but the model is called "
            "without them; use guidance=none for an unconditional model"
        )
    second = without_labels(conditions)
    doubled: dict[str, Tensor | None] = {}
    for name, c in conditions.items():
        other = second[name]
        doubled[name] = None if c is None or other is None else torch.cat([c, other])
    return doubled
