"""Classifier-free guidance."""

import math
from dataclasses import fields

import torch
from torch import Tensor

from flowexp.guidance.base import Guidance
from flowexp.models import Model
from flowexp.paths import Coefficients, Prediction

__all__ = ["ClassifierFree"]

_NO_LABEL = -1


class ClassifierFree(Guidance):
    """``v = v_u + scale (v_c - v_u)`` with the conditional and unconditional velocities.

    Data and noise are combined likewise, since all of them are affine in the network's output with
    the same coefficients. Both are evaluated as one doubled batch, which costs two evaluations per
    sample. scale = 1 is the conditional model, at the cost of one; 0 is the unconditional one.

    Args:
        scale: 1 = conditional, above 1 = guided.

    Raises:
        ValueError: scale is not finite.

    Source: Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, arXiv 2207.12598, eq. 6; their
    w is scale - 1.
    """

    def __init__(self, *, scale: float) -> None:
        if not math.isfinite(scale):
            raise ValueError(f"scale is {scale}; expected a finite number")
        self.scale = float(scale)

    def wrap(self, model: Model) -> Model:
        """The guided model; the model itself for scale = 1."""
        return model if self.scale == 1.0 else _ClassifierFreeModel(model, scale=self.scale)


class _ClassifierFreeModel(Model):
    """The model of :class:`ClassifierFree`."""

    def __init__(self, model: Model, *, scale: float) -> None:
        self.model = model
        self.scale = scale
        self.path = model.path
        self.time_range = model.time_range
        self.evaluations_per_call = 2 * model.evaluations_per_call
        self.origin = model.origin

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        """One call of the model with the batch, and once more without labels.

        Raises:
            ValueError: No labels are given.
        """
        labels = conditions.get("labels")
        if labels is None:
            raise ValueError(
                "classifier-free guidance needs labels, but the model is asked without them; use "
                "guidance=none for an unconditional model"
            )
        doubled = {name: None if c is None else torch.cat([c, c]) for name, c in conditions.items()}
        doubled["labels"] = torch.cat([labels, torch.full_like(labels, _NO_LABEL)])
        times = t if t.ndim == 0 else torch.cat([t, t])
        both = self.model.predict(torch.cat([x_t, x_t]), times, **doubled)
        conditional, unconditional = both.output.chunk(2)
        output = torch.lerp(unconditional, conditional, self.scale)
        c, conversion = both.coefficients, both.conversion
        if t.ndim == 1:
            c = _first_half(c)
            conversion = conversion.at(c)
        return Prediction(self.path, x_t, output, c, conversion)

    def nearest_time(self, t: Tensor) -> Tensor:
        """The times the guided model knows."""
        return self.model.nearest_time(t)


def _first_half(c: Coefficients) -> Coefficients:
    return Coefficients(*(getattr(c, field.name).chunk(2)[0] for field in fields(c)))
