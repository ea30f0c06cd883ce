"""How the learning rate depends on the images seen: factors of the optimizer's own rate.

A factor is computed before a step from the images shown until then: with a ramp the very first
step has rate 0, as in EDM's code.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

__all__ = ["Constant", "Cosine", "InverseSqrt", "LinearDecay", "LRSchedule"]


@dataclass(kw_only=True, eq=False)
class LRSchedule(ABC):
    """Factor of the learning rate: a ramp from 0 over ``ramp_up_kimg``, times a law of its own.

    Raises:
        ValueError: A number is out of range.
    """

    ramp_up_kimg: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.ramp_up_kimg < math.inf:
            raise ValueError(f"ramp_up_kimg is {self.ramp_up_kimg}; allowed: finite numbers >= 0")

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


@dataclass(kw_only=True, eq=False)
class LinearDecay(LRSchedule):
    """Constant until a point, then linear down to the end of training.

    Args:
        end_kimg: Where the decay ends, usually the length of the training.
        start_fraction: Share of ``end_kimg`` at which the decay starts, in [0, 1).
        end_factor: Factor at the end, in [0, 1].
    """

    end_kimg: float
    start_fraction: float = 0.5
    end_factor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_end(self.end_kimg, self.end_factor)
        if not 0.0 <= self.start_fraction < 1.0:
            raise ValueError(f"start_fraction is {self.start_fraction}; allowed: [0, 1)")

    def decay(self, kimg: float) -> float:
        """Linear from 1 at the start to ``end_factor`` at the end, constant outside."""
        start = self.start_fraction * self.end_kimg
        progress = min(1.0, max(0.0, (kimg - start) / (self.end_kimg - start)))
        return 1.0 + progress * (self.end_factor - 1.0)


@dataclass(kw_only=True, eq=False)
class Cosine(LRSchedule):
    """Half a cosine wave from 1 at the end of the ramp to the end of training.

    Args:
        end_kimg: Where the wave ends, usually the length of the training.
        end_factor: Factor at the end, in [0, 1].
    """

    end_kimg: float
    end_factor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_end(self.end_kimg, self.end_factor)
        ramp = self.ramp_up_kimg
        if ramp >= self.end_kimg:
            raise ValueError(f"ramp_up_kimg is {ramp}; allowed: below end_kimg={self.end_kimg}")

    def decay(self, kimg: float) -> float:
        """``end + (1 - end) (1 + cos(pi progress)) / 2``."""
        span = self.end_kimg - self.ramp_up_kimg
        progress = min(1.0, max(0.0, (kimg - self.ramp_up_kimg) / span))
        wave = 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.end_factor + (1.0 - self.end_factor) * wave


@dataclass(kw_only=True, eq=False)
class InverseSqrt(LRSchedule):
    """Constant until ``start_kimg``, then ``sqrt(start / images)``: needs no end.

    Source: Karras et al. 2024, arXiv 2312.02696, equation 67.
    """

    start_kimg: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.start_kimg < math.inf:
            raise ValueError(f"start_kimg is {self.start_kimg}; allowed: finite positive numbers")

    def decay(self, kimg: float) -> float:
        """``1 / sqrt(max(1, kimg / start))``."""
        return 1.0 / math.sqrt(max(1.0, kimg / self.start_kimg))


def _check_end(end_kimg: float, end_factor: float) -> None:
    if not end_kimg > 0:
        raise ValueError(f"end_kimg is {end_kimg}; allowed: positive numbers")
    if not 0.0 <= end_factor <= 1.0:
        raise ValueError(f"end_factor is {end_factor}; allowed: [0, 1]")
