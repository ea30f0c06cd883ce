"""Curricula: the number of noise levels of a discrete-time consistency model over the training."""

import math
from abc import ABC, abstractmethod

from flowexp.requirements import Part

__all__ = ["Curriculum", "Doubling", "FixedPoints", "Halving", "SquareRootGrowth"]


class Curriculum(Part, ABC):
    """The number N of noise levels of the grid.

    Constructors raise ``ValueError`` if an argument is out of its documented range.

    Attributes:
        start: The initial number, as its source counts it.
    """

    start: int

    @abstractmethod
    def points(self, images_seen: int) -> int:
        """N, at least 2, for a batch after ``images_seen`` images."""


class FixedPoints(Curriculum):
    """A constant N.

    Args:
        points: N, at least 2.

    Source: Song et al., Consistency models, 2023, arXiv 2303.01469 (distillation: 18 on CIFAR-10,
    40 on ImageNet-64).
    """

    def __init__(self, *, points: int = 18) -> None:
        if points < 2:
            raise ValueError(f"points is {points}; expected at least 2")
        self.start = int(points)

    def points(self, images_seen: int) -> int:
        return self.start


class Halving(Curriculum):
    """N - 1 steps, half as many in each stage, as in progressive distillation.

    The stage of 2 steps is twice as long, and the last one, of 1 step, does not end.

    Args:
        start: Steps of the first stage, at least 2.
        stage_kimg: Length of a stage, > 0.

    Source: Salimans & Ho, Progressive Distillation, 2022, arXiv 2202.00512, as in the code of
    consistency models (``scale_mode`` progdist).
    """

    def __init__(self, *, stage_kimg: float, start: int = 64) -> None:
        if start < 2:
            raise ValueError(f"start is {start}; expected at least 2")
        if not 0.0 < stage_kimg < math.inf:
            raise ValueError(f"stage_kimg is {stage_kimg}; expected a positive number")
        self.start = int(start)
        self.stage_images = 1000.0 * stage_kimg

    def points(self, images_seen: int) -> int:
        stage = images_seen / self.stage_images
        whole = self.start >> min(math.floor(stage), self.start.bit_length())
        if whole > 2:
            return whole + 1
        return 3 if stage - (math.log2(self.start) - 1.0) < 2.0 else 2


class _Growing(Curriculum):
    """N grows from ``start`` to ``end`` over ``total_kimg``."""

    def __init__(self, *, start: int, end: int, total_kimg: float) -> None:
        if not 1 <= start <= end:
            raise ValueError(f"need 1 <= start <= end, got start={start}, end={end}")
        if not 0.001 <= total_kimg < math.inf:
            raise ValueError(f"total_kimg is {total_kimg}; expected a positive number")
        self.start = int(start)
        self.end = int(end)
        self.images = round(1000.0 * total_kimg)


class SquareRootGrowth(_Growing):
    """``N = ceil(sqrt(p ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1`` at progress p of the training.

    Args:
        start: s0, at least 1.
        end: s1, at least s0.
        total_kimg: Thousands of images at which p = 1; N keeps growing beyond.

    Source: Song et al., Consistency models, 2023, arXiv 2303.01469, appendix C (2 and 150 on
    CIFAR-10, 2 and 200 on ImageNet-64), and their code.
    """

    def __init__(self, *, total_kimg: float, start: int = 2, end: int = 150) -> None:
        super().__init__(start=start, end=end, total_kimg=total_kimg)

    def points(self, images_seen: int) -> int:
        share = images_seen / self.images
        growth = share * ((self.end + 1) ** 2 - self.start**2)
        return max(math.ceil(math.sqrt(growth + self.start**2) - 1.0), 1) + 1


class Doubling(_Growing):
    """``N = min(s0 2^floor(k / K'), s1) + 1``, with ``K' = floor(K / (log2(s1 / s0) + 1))``.

    k is the number of images seen, K that of the whole training.

    Args:
        start: s0, at least 1.
        end: s1, at least s0.
        total_kimg: K in thousands of images.

    Source: Song & Dhariwal, iCT, 2023, arXiv 2310.14189, section 3.4 (10 and 1280).
    """

    def __init__(self, *, total_kimg: float, start: int = 10, end: int = 1280) -> None:
        super().__init__(start=start, end=end, total_kimg=total_kimg)

    def points(self, images_seen: int) -> int:
        stage = math.floor(self.images / (math.log2(self.end / self.start) + 1.0))
        doublings = min(images_seen // max(stage, 1), self.end.bit_length())
        return int(min(self.start * 2**doublings, self.end)) + 1
