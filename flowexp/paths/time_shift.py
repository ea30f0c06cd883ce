"""The map of time that multiplies the noise-to-signal ratio of the linear path by a constant."""

import math
from typing import TypeVar

from torch import Tensor

__all__ = ["dimension_shift", "shifted"]

Times = TypeVar("Times", Tensor, float)


def shifted(t: Times, shift: float) -> Times:
    """``s t / (1 + (s - 1) t)``, an increasing map of [0, 1] onto itself.

    On the linear path, ``t/(1 - t)`` is multiplied by s. So shifts are composed by multiplying
    them, and that by 1/s is the inverse.

    Source: Esser et al., Stable Diffusion 3, 2024, arXiv 2403.03206, eq. 23.
    """
    return shift * t / (1.0 + (shift - 1.0) * t)


def dimension_shift(*, channels: int, resolution: int, base: float) -> float:
    """``sqrt(n / base)`` with n = channels * resolution^2, how many numbers a sample has.

    The more numbers describe the same picture, the more noise it takes to hide it.

    Raises:
        ValueError: A number is out of range.

    Source: Zheng et al., Diffusion Transformers with Representation Autoencoders (RAE), 2025, arXiv
    2510.11690: base 4096, that of 32 x 32 x 4 latents; after Esser et al., 2024.
    """
    if channels < 1 or resolution < 1:
        raise ValueError(
            f"channels is {channels} and resolution {resolution}; expected integers >= 1"
        )
    if not 0.0 < base < math.inf:
        raise ValueError(f"base is {base}; expected a finite positive number")
    return math.sqrt(channels * resolution**2 / base)
