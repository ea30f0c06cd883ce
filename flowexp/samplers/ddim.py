"""DDIM, deterministic and stochastic, on any path."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Unpack

from torch import Tensor

from flowexp.requirements import Parts, Unmet, on_gaussian_noise
from flowexp.samplers.field import Field, Intervals, States
from flowexp.samplers.fixed_step import FixedStepSampler, SteppingInTime
from flowexp.seeding import Noise

__all__ = ["DDIM"]


class DDIM(FixedStepSampler):
    """``x' = alpha' D + sigma' (sqrt(1 - s^2) e + s eps)`` with ``s = eta sqrt(1 - (n'/n)^2)``.

    ``D`` and ``e`` are the predicted data and noise and ``n = sigma/alpha``. eta = 0 is Euler's
    method in n, defined also where alpha = 0; on the linear and VE paths it equals plain Euler.
    eta = 1 is ancestral sampling (the posterior of DDPM).

    Args:
        eta: Share of fresh noise, in [0, 1]; above 0 it needs a Gaussian source.

    Source: Song et al., DDIM, 2020, arXiv 2010.02502, eq. 12 and 16 (there with alpha^2 for alpha).
    """

    def __init__(self, *, eta: float = 0.0, **stepping: Unpack[SteppingInTime]) -> None:
        super().__init__(variable=None, **stepping)
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta is {eta}; expected a number in [0, 1]")
        self.eta = float(eta)
        self.needs_gaussian = self.eta > 0.0

    def noise_needs(self, parts: Parts) -> Iterator[Unmet]:
        """A Gaussian source for fresh noise."""
        if self.eta > 0.0:
            what, off = f"DDIM with eta={self.eta:g} adds", "Set sampler.eta=0"
            yield from on_gaussian_noise(parts, key=".eta", what=what, remedy=off)

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        levels = field.levels([intervals[0].start, *(interval.end for interval in intervals)])
        steps = zip(intervals, pairwise(levels), strict=True)
        for interval, ((alpha_before, sigma_before), (alpha, sigma)) in steps:
            prediction = field.predict(z, interval.start)
            fresh = 0.0
            if self.eta > 0.0:
                # n'/n without a division by alpha, which is 0 where some paths start.
                ratio = (sigma * alpha_before) / (alpha * sigma_before)
                fresh = self.eta * math.sqrt(max(0.0, 1.0 - ratio**2))
            z = prediction.data * alpha
            if sigma > 0.0:
                z.add_(prediction.noise, alpha=sigma * math.sqrt(1.0 - fresh**2))
            if sigma * fresh > 0.0 and noise is not None:
                z.add_(noise(interval.index, z), alpha=sigma * fresh)
            yield z
