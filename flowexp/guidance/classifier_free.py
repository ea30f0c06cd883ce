"""Classifier-free guidance."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

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
        without: Names of the conditions that the unconditional prediction does not have; the others
            are given to both.

    Source: Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, arXiv 2207.12598, eq. 6; their
    w is scale - 1. ``channels=3`` is what the code of DiT (Peebles & Xie, 2022, arXiv 2212.09748)
    does "for exact reproducibility".
    """

    later_options: ClassVar[Mapping[str, object]] = {"without": ["labels", "tokens"]}

    def __init__(
        self,
        *,
        scale: float,
        channels: int | None = None,
        without: Sequence[str] = LABELLING,
    ) -> None:
        if not math.isfinite(scale):
            raise ValueError(f"scale is {scale}; expected a finite number")
        if channels is not None and channels < 1:
            raise ValueError(f"channels is {channels}; expected a positive number or null")
        if not without:
            raise ValueError("without is empty; expected names of conditions, such as labels")
        self.scale = float(scale)
        self.channels = channels
        self.without = tuple(without)
        self.removes_labels = any(name in LABELLING for name in self.without)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network that knows the conditions and what it gives without, if there is guidance."""
        if self.scale == 1.0:
            return
        name, off = type(self).__name__, "use guidance=none"
        if self.removes_labels:
            labels = on_labels(parts, name=name, remedy="guidance=none")
            yield from all_of(labels, on_dropped_labels(parts, name=name, key=".", remedy=off))
        yield from all_of(self._dropped_conditions(parts), self._guided_once(parts))

    def _dropped_conditions(self, parts: Parts) -> Iterator[Unmet]:
        """The training must have shown inputs without these conditions, and with the others."""
        shares = parts.network.condition_dropout
        removed = [name for name in self.without if name not in LABELLING]
        if shares is None or not removed:
            return
        own, known = type(self).__name__, ",".join(shares) or "no images"
        if unknown := [name for name in removed if name not in shares]:
            problem = f"{own} compares with and without {' and '.join(unknown)}, but the network"
            remedy = "Set guidance.without to conditions that it takes."
            yield Unmet(".without", f"{problem} takes {known}.", remedy)
            return
        least = min(shares[name] for name in removed)
        kept = [name for name in shares if name not in removed and shares[name] >= least]
        never = [name for name in removed if shares[name] == 0.0]
        what = f"{own} uses the prediction without {' and '.join(removed)}"
        if never:
            problem = f"{what}, which the network never learns: it is always given {never[0]}."
            remedy = f"Train with task.inputs.{never[0]}.dropout=0.1, or use guidance=none."
            yield Unmet(".without", problem, remedy, False)
        elif kept:
            problem = f"{what}, but in training {kept[0]} was dropped with them."
            remedy = f"Set guidance.without=[{','.join([*removed, *kept])}], or use guidance=none."
            yield Unmet(".without", problem, remedy, False)

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
        self.asks_without_label |= guidance.removes_labels

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        """One call with the batch and, below it, the batch without the conditions."""
        times = t if t.ndim == 0 else torch.cat([t, t])
        both = self.model.predict(torch.cat([x_t, x_t]), times, **self._doubled(conditions))
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
        twice = self._doubled(conditions)
        both = self.model.average_velocity(torch.cat([x_t, x_t]), t, r, **twice)
        return self._lerped(both)

    def at(self, times: Tensor) -> list[Evaluation]:
        if times.ndim > 1:
            return super().at(times)
        return [partial(self._evaluate, evaluate) for evaluate in self.model.at(times)]

    def _evaluate(
        self, evaluate: Evaluation, /, x_t: Tensor, **conditions: Tensor | None
    ) -> Prediction:
        return self._guided(x_t, evaluate(torch.cat([x_t, x_t]), **self._doubled(conditions)))

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

    def _doubled(self, conditions: Conditions) -> dict[str, Tensor | None]:
        """Every condition twice, the second time "none" for those that guidance removes."""
        without = self.guidance.without
        if all(conditions.get(name) is None for name in without):
            raise ValueError(
                f"classifier-free guidance needs {' or '.join(without)}, but the model is called "
                "without them; use guidance=none for an unconditional model"
            )
        second = without_labels(conditions, names=without)
        doubled: dict[str, Tensor | None] = {}
        for name, c in conditions.items():
            other = second[name]
            doubled[name] = None if c is None or other is None else torch.cat([c, other])
        return doubled
