"""Perceptual distance between the end points of prediction and target."""

from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.objectives.flow_map.leaps import Leap
from flowexp.objectives.flow_map.legs import Comparison
from flowexp.objectives.flow_map.regressions import EndPoint
from flowexp.objectives.perceptual_regression import (
    PerceptualDistance,
    check_files,
    compared_images,
)
from flowexp.objectives.premetrics import Premetric
from flowexp.requirements import Parts, Unmet

__all__ = ["PerceptualEndPoint"]


class PerceptualEndPoint(EndPoint):
    """``perceptual(X_{t->r}(x_t), X_{s->r}(x_s))``, plus the premetric of the difference, if any.

    Args:
        perceptual: Distance of images in [-1, 1]; it is computed in float32.

    Source: Song et al., Consistency Models, 2023, arXiv 2303.01469 (loss norm "lpips").
    """

    measures_itself = True

    def __init__(self, *, perceptual: PerceptualDistance) -> None:
        self.perceptual = perceptual

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Image data."""
        yield from compared_images(parts, self.perceptual)

    def check(self) -> None:
        check_files(self.perceptual, within="perceptual")

    def error(self, comparison: Comparison, leap: Leap, premetric: Premetric | None) -> Tensor:
        gap = expand_as(leap.t - leap.r, leap.x_t)
        ends = (leap.x_t - gap * u for u in (comparison.prediction, comparison.target))
        distance = self.perceptual(*(end.to(torch.float32) for end in ends)).to(torch.float64)
        if premetric is None:
            return distance
        return distance + super().error(comparison, leap, premetric)
