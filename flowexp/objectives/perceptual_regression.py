"""Regression of one prediction together with a perceptual distance of the predicted data."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from flowexp.couplings import Pairs
from flowexp.errors import UsageError
from flowexp.models import Model
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.regression import PredictionKind, point_of, require_kind, weighted
from flowexp.objectives.weightings import Weighting
from flowexp.requirements import Parts, Unmet, all_of, on_pixels

__all__ = ["PerceptualDistance", "PerceptualRegression", "check_files", "compared_images"]


class PerceptualDistance(Protocol):
    """A distance of images, differentiable in its first argument."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """The distances, (B,), of images (B, C, H, W), float32 in [-1, 1]."""


class PerceptualRegression(Objective):
    """``weight(t) premetric(prediction - truth) + perceptual(D, x)``, optionally over sigma.

    D is the model's data prediction. With the velocity target, weight ``alpha = 1 - t`` and the
    pseudo-Huber premetric this is RF++'s LPIPS-Huber loss, with ``inverse_time`` its
    LPIPS-Huber-1/t. At t = 1 without a premetric it is the one-step distillation of rectified flow
    under LPIPS. For pairs of a deterministic map every premetric has the same optimum.

    States, predictions and errors are computed in float64; the perceptual distance in float32.

    Args:
        target: The prediction that the premetric compares: ``velocity``, ``data`` or ``noise``.
        premetric: Measure of a deviation, with ``weighting``; None = the perceptual distance alone.
        perceptual: Distance of the data prediction from the data.
        inverse_time: Divide the perceptual distance by sigma(t), which is t on the linear path;
            the timestep distribution must stay away from sigma = 0.

    Source: Lee et al., RF++, 2024, arXiv 2405.20320, section 4.2 and their train.py.
    """

    def __init__(
        self,
        target: PredictionKind,
        *,
        weighting: Weighting,
        premetric: Premetric | None = None,
        perceptual: PerceptualDistance,
        inverse_time: bool = False,
    ) -> None:
        require_kind(target)
        self.target = target
        self.weighting = weighting
        self.premetric = premetric
        self.perceptual = perceptual
        self.inverse_time = inverse_time

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        yield from all_of(super().needs(parts), compared_images(parts, self.perceptual))

    def check(self) -> None:
        check_files(self.perceptual)

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        point = point_of(pairs, model.path, t)
        prediction = model.predict(point.x_t, point.t, **pairs.conditions)
        c = model.path.schedule.coefficients(point.t)
        data = prediction.data.to(torch.float32)
        perceptual = self.perceptual(data, point.x.to(torch.float32)).to(torch.float64)
        total = perceptual / c.sigma if self.inverse_time else perceptual
        metrics = {"perceptual": perceptual.detach().mean()}
        if self.premetric is not None:
            difference = getattr(prediction, self.target) - getattr(point, self.target)
            deviation = self.premetric(difference)
            metrics["premetric"] = deviation.detach().mean()
            total = total + self.weighting(c) * deviation
        return Loss(weighted(total, pairs=pairs), metrics)


def compared_images(parts: Parts, perceptual: PerceptualDistance) -> Iterator[Unmet]:
    """The need of an objective with a perceptual distance: data that are images."""
    remedy = "Use an objective without a perceptual distance."
    name = type(perceptual).__name__
    yield from on_pixels(parts, name=f"{name} compares images", remedy=remedy)


def check_files(part: object, *, within: str | None = None) -> None:
    """Raise ``UsageError`` if a part reads a file that is missing.

    ``within`` is the argument that holds the part, which the error's key then begins with.
    """
    try:
        getattr(part, "check", lambda: None)()
    except UsageError as error:
        if within is None or error.key is None:
            raise
        key = f"{within}.{error.key}"
        raise UsageError(error.problem, key=key, remedy=error.remedy) from None
