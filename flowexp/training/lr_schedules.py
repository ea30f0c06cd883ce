"""How the learning rate depends on the images seen: factors of the optimizer's own rate.

A factor is computed before a step from the images shown until then: with a ramp the very first
step has rate 0, as in EDM's code.
"""

import math
from abc import ABC, abstractmethod

__all__ = ["Constant", "Cosine", "InverseSqrt", "LinearDecay", "LRSchedule"]


class LRSchedule(ABC):
    """Factor of the learning rate: a ramp from 0 over ``ramp_up_kimg``, times a law of its own.

    Raises:
        ValueError: The ramp is negative.
    """

    def __init__(self, *, ramp_up_kimg: float = 0.0) -> None:
        if ramp_up_kimg < 0:
            raise ValueError(f"ramp_up_kimg is {ramp_up_kimg}; allowed: numbers >= 0")
        self.ramp_up_kimg = ramp_up_kimg

    def factor(self, images_seen: float) -> float:
        """Factor of the learning rate for the step after ``images_seen`` images."""
        kimg = images_seen / 1000.0
        ramp = min(1.0, kimg / self.ramp_up_kimg) if self.ramp_up_kimg > 0 else 1.0
        return ramp * self.decay(kimg)

    @abstractmethod
    def decay(self, kimg: float) -> float:
        """The factor without the ramp after ``kimg`` thousand images."""


class Constant(LRSchedule):
    """The optimizer's rate throughout, after the ramp."""

    def decay(self, kimg: float) -> float:
        return 1.0


class LinearDecay(LRSchedule):
    """Constant until a point, then linear down to the end of training.

    Args:
        end_kimg: Where the decay ends, usually the length of the training.
        start_fraction: Share of ``end_kimg`` at which the decay starts, in [0, 1).
        end_factor: Factor at the end, in [0, 1].

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        *,
        end_kimg: float,
        start_fraction: float = 0.5,
        end_factor: float = 0.0,
        ramp_up_kimg: float = 0.0,
    ) -> None:
        super().__init__(ramp_up_kimg=ramp_up_kimg)
        _check_end(end_kimg, end_factor)
        if not 0.0 <= start_fraction < 1.0:
            raise ValueError(f"start_fraction is {start_fraction}; allowed: [0, 1)")
        self.end_kimg = end_kimg
        self.start_fraction = start_fraction
        self.end_factor = end_factor

    def decay(self, kimg: float) -> float:
        """Linear from 1 at the start to ``end_factor`` at the end, constant outside."""
        start = self.start_fraction * self.end_kimg
        progress = min(1.0, max(0.0, (kimg - start) / (self.end_kimg - start)))
        return 1.0 + progress * (self.end_factor - 1.0)


class Cosine(LRSchedule):
    """Half a cosine wave from 1 at the end of the ramp to the end of training.

    Args:
        end_kimg: Where the wave ends, usually the length of the training.
        end_factor: Factor at the end, in [0, 1].

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self, *, end_kimg: float, end_factor: float = 0.0, ramp_up_kimg: float = 0.0
    ) -> None:
        super().__init__(ramp_up_kimg=ramp_up_kimg)
        _check_end(end_kimg, end_factor)
        if ramp_up_kimg >= end_kimg:
            raise ValueError(f"ramp_up_kimg is {ramp_up_kimg}; allowed: below end_kimg={end_kimg}")
        self.end_kimg = end_kimg
        self.end_factor = end_factor

    def decay(self, kimg: float) -> float:
        """``end + (1 - end) (1 + cos(pi progress)) / 2``."""
        span = self.end_kimg - self.ramp_up_kimg
        progress = min(1.0, max(0.0, (kimg - self.ramp_up_kimg) / span))
        wave = 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.end_factor + (1.0 - self.end_factor) * wave


class InverseSqrt(LRSchedule):
    """Constant until ``start_kimg``, then ``sqrt(start / images)``: needs no end.

    Raises:
        ValueError: A number is out of range.

    Source: Karras et al. 2024, arXiv 2312.02696, equation 67.
    """

    def __init__(self, *, start_kimg: float, ramp_up_kimg: float = 0.0) -> None:
        super().__init__(ramp_up_kimg=ramp_up_kimg)
        if not start_kimg > 0:
            raise ValueError(f"start_kimg is {start_kimg}; allowed: positive numbers")
        self.start_kimg = start_kimg

    def decay(self, kimg: float) -> float:
        """``1 / sqrt(max(1, kimg / start))``."""
        return 1.0 / math.sqrt(max(1.0, kimg / self.start_kimg))


def _check_end(end_kimg: float, end_factor: float) -> None:
    if not end_kimg > 0:
        raise ValueError(f"end_kimg is {end_kimg}; allowed: positive numbers")
    if not 0.0 <= end_factor <= 1.0:
        raise ValueError(f"end_factor is {end_factor}; allowed: [0, 1]")
