"""Schedules of the relative length a of the first leg, as functions of the images seen."""

import math
from abc import ABC, abstractmethod

from flowexp.requirements import Part

__all__ = [
    "ConstantShare",
    "CosineShare",
    "ExponentialShare",
    "LinearShare",
    "LogarithmicShare",
    "ShareSchedule",
    "SigmoidShare",
    "StepShare",
]


class ShareSchedule(Part, ABC):
    """The relative length a of the first leg over the course of a training.

    Constructors raise ``ValueError`` if an argument is out of its documented range.
    """

    @abstractmethod
    def share(self, images_seen: int) -> float:
        """a, in [0, 1], for a batch after ``images_seen`` images."""


class ConstantShare(ShareSchedule):
    """The same a throughout.

    Args:
        value: a, in [0, 1]; 0 = MeanFlow's derivative, 1 = trajectory flow matching.
    """

    def __init__(self, *, value: float = 1.0) -> None:
        self.value = _checked("value", value)

    def share(self, images_seen: int) -> float:
        return self.value


class StepShare(ShareSchedule):
    """``initial`` before ``at_kimg`` and ``final`` from there on, both in [0, 1]."""

    def __init__(self, *, at_kimg: float, initial: float = 1.0, final: float = 0.0) -> None:
        if not at_kimg >= 0.0:
            raise ValueError(f"at_kimg is {at_kimg}; expected a number >= 0")
        self.initial = _checked("initial", initial)
        self.final = _checked("final", final)
        self.at_kimg = float(at_kimg)

    def share(self, images_seen: int) -> float:
        return self.initial if images_seen / 1000.0 < self.at_kimg else self.final


class _Ramp(ShareSchedule):
    """``initial`` before ``start_kimg``, ``final`` after ``end_kimg``, and a curve in between."""

    def __init__(
        self,
        *,
        end_kimg: float,
        start_kimg: float = 0.0,
        initial: float = 1.0,
        final: float = 0.0,
    ) -> None:
        if not 0.0 <= start_kimg < end_kimg < math.inf:
            raise ValueError(
                f"need 0 <= start_kimg < end_kimg, got start_kimg={start_kimg}, end_kimg={end_kimg}"
            )
        self.initial = _checked("initial", initial)
        self.final = _checked("final", final)
        self.start_kimg = float(start_kimg)
        self.end_kimg = float(end_kimg)

    def share(self, images_seen: int) -> float:
        kimg = images_seen / 1000.0
        if kimg < self.start_kimg:
            return self.initial
        if kimg > self.end_kimg:
            return self.final
        return self.between((kimg - self.start_kimg) / (self.end_kimg - self.start_kimg))

    def between(self, progress: float) -> float:
        """The share a at ``progress`` in [0, 1]."""
        covered = self.covered(progress)
        return (1.0 - covered) * self.initial + covered * self.final

    def covered(self, progress: float) -> float:
        """The interpolation weight of ``final`` at ``progress``, in [0, 1]."""
        return progress


class LinearShare(_Ramp):
    """Linear from ``initial`` to ``final``, both in [0, 1]."""


class CosineShare(_Ramp):
    """Half a cosine period from ``initial`` to ``final``, both in [0, 1].

    Source: Luo et al., SoFlow, 2025, arXiv 2512.15657, the authors' code (``Cosine``).
    """

    def covered(self, progress: float) -> float:
        return 0.5 * (1.0 - math.cos(math.pi * progress))


class LogarithmicShare(_Ramp):
    """``initial + (final - initial) log10(1 + 9 p)`` between start and end: fast at first.

    Source: Zhang et al., alpha-Flow, 2025, arXiv 2510.20771, the authors' code (``log``).
    """

    def covered(self, progress: float) -> float:
        return math.log10(1.0 + 9.0 * progress)


class SigmoidShare(_Ramp):
    """``initial + (final - initial) sigmoid(gamma (p - 1/2))`` between start and end.

    Args:
        end_kimg: End of the ramp, > start_kimg.
        start_kimg: Start of the ramp, >= 0.
        initial: a before the start, in [0, 1].
        final: a after the end, in [0, 1].
        gamma: Steepness, > 0.

    Source: Zhang et al., alpha-Flow, 2025, arXiv 2510.20771, section 4.3 (gamma = 25).
    """

    def __init__(
        self,
        *,
        end_kimg: float,
        start_kimg: float = 0.0,
        initial: float = 1.0,
        final: float = 0.0,
        gamma: float = 25.0,
    ) -> None:
        super().__init__(end_kimg=end_kimg, start_kimg=start_kimg, initial=initial, final=final)
        if not gamma > 0.0:
            raise ValueError(f"gamma is {gamma}; expected a positive number")
        self.gamma = float(gamma)

    def covered(self, progress: float) -> float:
        return 1.0 / (1.0 + math.exp(-self.gamma * (progress - 0.5)))


class ExponentialShare(_Ramp):
    """``initial (final/initial)^(p^power)`` between start and end: equal factors in equal times.

    Args:
        end_kimg: End of the ramp, > start_kimg.
        start_kimg: Start of the ramp, >= 0.
        initial: a before the start, in (0, 1].
        final: a after the end, in [0, 1]; 3.125e-4 in SoFlow's CIFAR-10 recipe.
        power: Exponent of the progress p, > 0; below 1, a decays faster at first.

    Source: Luo et al., SoFlow, 2025, arXiv 2512.15657 (power 1); Zhang et al., alpha-Flow, 2025,
    arXiv 2510.20771, the authors' code.
    """

    def __init__(
        self,
        *,
        end_kimg: float,
        start_kimg: float = 0.0,
        initial: float = 1.0,
        final: float = 3.125e-4,
        power: float = 1.0,
    ) -> None:
        super().__init__(end_kimg=end_kimg, start_kimg=start_kimg, initial=initial, final=final)
        if not initial > 0.0:
            raise ValueError(f"initial is {initial}; expected a number in (0, 1]")
        if not power > 0.0:
            raise ValueError(f"power is {power}; expected a positive number")
        self.power = float(power)

    def between(self, progress: float) -> float:
        ratio: float = (self.final / self.initial) ** (progress**self.power)
        return self.initial * ratio


def _checked(name: str, share: float) -> float:
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{name} is {share}; expected a share in [0, 1]")
    return float(share)
