"""DDPM's ancestral sampling; with Langevin steps, score-SDE's predictor-corrector."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.requirements import Parts, Unmet, all_of, on_pixels
from flowexp.samplers.field import Field, Interval, Intervals, States
from flowexp.samplers.fixed_step import FixedStepSampler, SteppingInTime
from flowexp.seeding import Noise

__all__ = ["Ancestral", "Level"]

Level = tuple[float, float]
"""``(alpha, sigma)`` at a time."""


class Ancestral(FixedStepSampler):
    """``x' = alpha' D + (sigma'^2 alpha)/(sigma^2 alpha') (x - alpha D) + s eps``, D clipped.

    The mean is that of the posterior of x' given x and the data D. With ``n = sigma/alpha`` and
    ``r^2 = 1 - (n'/n)^2``, its deviation is ``s = sigma' r``; that of a forward step from x' to x
    is ``s = sigma r``. The step to t = 0 adds no noise. On the VE path this is score-SDE's reverse
    diffusion; without ``clip``, ``large`` and ``snr`` it is ``sampler=ddim sampler.eta=1``.

    With ``snr`` each step begins with a step of Langevin dynamics at x's own noise level,
    ``x <- x + h s(x) + sqrt(2 h) eps`` with the score s and
    ``h = 2 (alpha/alpha')^2 (snr |eps| / |s|)^2``, which costs one evaluation more. It is meant for
    images: in a few dimensions |s| comes near 0.

    Args:
        large: Use the forward step's deviation (DDPM's ``fixedlarge``, ``s^2 = beta``), which suits
            many steps; else the posterior's (``fixedsmall``).
        clip: The predicted data are clipped to [-clip, clip], > 0, which only images allow; None =
            not clipped.
        snr: Signal-to-noise ratio of the Langevin steps, > 0; None = no such steps.

    Source: Ho et al., DDPM, 2020, arXiv 2006.11239, eq. 7 and algorithm 2; hojonathanho/diffusion,
    diffusion_utils_2.py (clipping, both variances). Song et al., 2021, arXiv 2011.13456, algorithms
    2 to 5, and their sampling.py, where the norms are means over the batch; here each sample has
    its own, so that it does not depend on the others.
    """

    needs_gaussian = True

    def __init__(
        self,
        *,
        large: bool = True,
        clip: float | None = 1.0,
        snr: float | None = None,
        **stepping: Unpack[SteppingInTime],
    ) -> None:
        super().__init__(variable=None, **stepping)
        for name, value in (("clip", clip), ("snr", snr)):
            if value is not None and not value > 0.0:
                raise ValueError(f"{name} is {value}; expected a positive number or null")
        self.large = large
        self.clip = clip
        self.snr = snr

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Images, if the predicted data are clipped, besides what every sampler needs."""
        yield from all_of(super().needs(parts), self._clipped(parts))

    def _clipped(self, parts: Parts) -> Iterator[Unmet]:
        if self.clip is not None:
            name = f"{type(self).__name__} clips predicted data to the range of images"
            yield from on_pixels(parts, name=name, remedy="Set it to null.", key=".clip")

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        if noise is None:
            raise ValueError(f"{type(self).__name__} adds noise at each step, but noise is None")
        levels = field.levels([intervals[0].start, *(interval.end for interval in intervals)])
        steps = zip(intervals, pairwise(levels), strict=True)
        for interval, (before, after) in steps:
            if self.snr is not None:
                size = 2.0 * (self.snr * before[0] / after[0]) ** 2
                z = _langevin(field, z, interval, size=size, noise=noise)
            data = field.predict(z, interval.start).data
            z = self.mean(z, data, before=before, after=after)
            deviation = self.deviation(before=before, after=after)
            if deviation > 0.0:
                z.add_(noise(interval.index, z), alpha=deviation)
            yield z

    def mean(self, z: Tensor, data: Tensor, *, before: Level, after: Level) -> Tensor:
        """The mean of a step's end, a new tensor, from its start z (B, ...) and predicted data.

        ``before`` and ``after`` are (alpha, sigma) at the start and end.
        """
        (alpha_before, sigma_before), (alpha, sigma) = before, after
        if self.clip is not None:
            data = data.clamp(-self.clip, self.clip)
        rest = torch.sub(z, data, alpha=alpha_before)
        factor = _ratio(before, after) * sigma / sigma_before
        return torch.add(data * alpha, rest, alpha=factor)

    def deviation(self, *, before: Level, after: Level) -> float:
        """The standard deviation of a step's end; 0 at t = 0."""
        if after[1] == 0.0:
            return 0.0
        sigma = before[1] if self.large else after[1]
        return sigma * math.sqrt(1.0 - _ratio(before, after) ** 2)


def _ratio(before: Level, after: Level) -> float:
    """n'/n without a division by alpha, which is 0 where some paths start."""
    (alpha_before, sigma_before), (alpha, sigma) = before, after
    return (sigma * alpha_before) / (alpha * sigma_before)


def _langevin(field: Field, z: Tensor, interval: Interval, *, size: float, noise: Noise) -> Tensor:
    """One step of Langevin dynamics at the interval's start, on draws that the steps do not use."""
    score = field.predict(z, interval.start).score
    eps = noise(interval.count + interval.index, z)
    h = size * eps.flatten(1).square().sum(dim=1) / score.flatten(1).square().sum(dim=1)
    return z + expand_as(h, z) * score + expand_as(torch.sqrt(2.0 * h), z) * eps
