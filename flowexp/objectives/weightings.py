"""Loss weights as functions of the schedule alone.

A weight multiplies the squared error of the objective's target. Errors of the three targets are
proportional to each other: with ``W = alpha sigma' - alpha' sigma`` and r = sigma / alpha,
``error_x = -r error_e = -(sigma / W) error_v``. A weight w on the data loss is therefore the weight
``w r^2`` on the noise loss and ``w (sigma / W)^2`` on the velocity loss, for squared premetrics.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from flowexp.paths import Coefficients
from flowexp.requirements import Part, Parts, Unmet, within_signal

__all__ = [
    "Alpha",
    "EDM",
    "InverseNoise",
    "SNR",
    "SigmoidOfSNR",
    "LikelihoodOfNoise",
    "MinSNR",
    "ShiftedSNR",
    "TruncatedSNR",
    "Uniform",
    "VelocityOfNoise",
    "Weighting",
]


class Weighting(Part, ABC):
    """The loss weight at a time; ``needs_signal`` if it is infinite where alpha is 0."""

    needs_signal: bool = False

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Times at which it is finite."""
        if self.needs_signal:
            yield from within_signal(parts, name=type(self).__name__, group="weighting")

    @abstractmethod
    def __call__(self, c: Coefficients) -> Tensor:
        """The weight, of the shape of t, float64."""


class Uniform(Weighting):
    """Weight 1."""

    def __call__(self, c: Coefficients) -> Tensor:
        return torch.ones_like(c.alpha)


class Alpha(Weighting):
    """``alpha``, which is 1 - t on the linear path: deviations near the data count most.

    Source: Lee et al., RF++, 2024, arXiv 2405.20320: weight of LPIPS-Huber's pseudo-Huber part.
    """

    def __call__(self, c: Coefficients) -> Tensor:
        return c.alpha


class EDM(Weighting):
    """``(r^2 + sigma_data^2) / (r sigma_data)^2 = 1/sigma_data^2 + 1/r^2``, for the data target.

    It is ``1 / c_out^2`` of EDM's preconditioning, so that the network's own target has unit weight
    at every noise level, on every path.

    Args:
        sigma_data: Standard deviation of the data, > 0; equal to that of the parameterization.
            1 gives "snr+1" of the consistency models' code; this weighting is its "karras".
        power: Exponent of the weight; 1/2 = ``1 / c_out``, for premetrics that are not squares.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1; Lee et al., TCM, 2024, arXiv
    2410.14895, as in the authors' loss.py ("cout_sq" is power = 1, "cout" 1/2).
    """

    later_options: ClassVar[Mapping[str, object]] = {"power": 1.0}

    def __init__(self, *, sigma_data: float = 0.5, power: float = 1.0) -> None:
        if not sigma_data > 0.0:
            raise ValueError(f"sigma_data is {sigma_data}; expected a positive number")
        self.sigma_data = float(sigma_data)
        self.power = float(power)

    def __call__(self, c: Coefficients) -> Tensor:
        weight = _snr(c) + self.sigma_data**-2
        return weight if self.power == 1.0 else weight**self.power


class SNR(Weighting):
    """``(alpha / sigma)^2``, for the data target: the noise loss with weight 1.

    Source: Salimans & Ho, Progressive Distillation, 2022, arXiv 2202.00512, section 4.
    """

    def __call__(self, c: Coefficients) -> Tensor:
        return _snr(c)


class InverseNoise(Weighting):
    """``alpha / sigma``: sCM's prior weight 1 / sigma, for TrigFlow's output.

    Source: Lu & Song, sCM, 2024, arXiv 2410.11081, section 4.2.
    """

    def __call__(self, c: Coefficients) -> Tensor:
        return c.alpha / c.sigma


class TruncatedSNR(Weighting):
    """``max((alpha / sigma)^2, 1)``, for the data target.

    Source: Salimans & Ho, Progressive Distillation, 2022, arXiv 2202.00512, section 4.
    """

    def __call__(self, c: Coefficients) -> Tensor:
        return _snr(c).clamp(min=1.0)


class MinSNR(Weighting):
    """``min((alpha / sigma)^2, gamma)``, for the data target.

    Args:
        gamma: Largest weight, > 0; gamma -> inf is :class:`SNR`, gamma -> 0 is gamma times 1.

    Source: Hang et al., Efficient Diffusion Training via Min-SNR Weighting, 2023, arXiv 2303.09556
    (gamma = 5).
    """

    def __init__(self, *, gamma: float = 5.0) -> None:
        if not gamma > 0.0:
            raise ValueError(f"gamma is {gamma}; expected a positive number")
        self.gamma = float(gamma)

    def __call__(self, c: Coefficients) -> Tensor:
        return _snr(c).clamp(max=self.gamma)


class SigmoidOfSNR(Weighting):
    """``1/2 sigmoid(b - lambda) (-dlambda/dt) alpha^a / (alpha^2 + sigma^2)``, for IMM.

    ``lambda = 2 ln(alpha/sigma)``, so that ``-dlambda/dt = 2 W/(alpha sigma)``. It is finite at
    sigma = 0, and at alpha = 0 for a >= 1. sigma is that of the path over ``noise``.

    Args:
        a: Exponent of alpha: 1 or 2 as published.
        b: Shift of the sigmoid.
        noise: Factor of sigma on the path, > 0; see :class:`flowexp.paths.ScaledNoise`.

    Source: Zhou et al., Inductive Moment Matching, 2025, arXiv 2503.07565, eq. 13 (b = 4, a = 1 or
    2); the ELBO of Kingma & Gao, 2023, arXiv 2303.00848, with its sigmoid weight.
    """

    def __init__(self, *, a: float = 1.0, b: float = 4.0, noise: float = 1.0) -> None:
        if not noise > 0.0:
            raise ValueError(f"noise is {noise}; expected a positive number")
        self.a = float(a)
        self.b = float(b)
        self.noise = float(noise)

    def __call__(self, c: Coefficients) -> Tensor:
        alpha, sigma, w = c.alpha, c.sigma / self.noise, c.wronskian / self.noise
        # sigmoid(b - lambda) = sigma^2 / (sigma^2 + exp(-b) alpha^2)
        shifted = sigma**2 + math.exp(-self.b) * alpha**2
        return sigma * w * alpha ** (self.a - 1.0) / (shifted * (alpha**2 + sigma**2))


class ShiftedSNR(Weighting):
    """``plus + (alpha / (sigma + offset))^2``, for the velocity target; finite at both ends.

    Args:
        plus: Least weight, >= 0; 1 is "snr+1" of the authors' code, 4 its "karras".
        offset: Keeps the weight finite where sigma is 0, > 0.

    Source: Zhu et al., SlimFlow, 2024, arXiv 2407.12718, as in the authors' losses.py, whose
    published runs have weight 1.
    """

    def __init__(self, *, plus: float = 1.0, offset: float = 1e-3) -> None:
        if not (plus >= 0.0 and offset > 0.0):
            raise ValueError(f"need plus >= 0 and offset > 0, got plus={plus}, offset={offset}")
        self.plus = float(plus)
        self.offset = float(offset)

    def __call__(self, c: Coefficients) -> Tensor:
        return self.plus + (c.alpha / (c.sigma + self.offset)) ** 2


class VelocityOfNoise(Weighting):
    """``(W / alpha)^2``, for the noise target: the velocity loss of the converted prediction.

    Source: Ma et al., SiT, 2024, arXiv 2401.08740 (weight "velocity").
    """

    needs_signal = True

    def __call__(self, c: Coefficients) -> Tensor:
        return (c.wronskian / c.alpha) ** 2


class LikelihoodOfNoise(Weighting):
    """``W / (alpha sigma)``, for the noise target: the likelihood weight of the SDE (up to 1/2).

    Source: Ma et al., SiT, 2024, arXiv 2401.08740 (weight "likelihood"); Song et al., Maximum
    Likelihood Training of Score-Based Diffusion Models, 2021, arXiv 2101.09258.
    """

    needs_signal = True

    def __call__(self, c: Coefficients) -> Tensor:
        """The weight; infinite at both ends."""
        return c.wronskian / (c.alpha * c.sigma)


def _snr(c: Coefficients) -> Tensor:
    return (c.alpha / c.sigma) ** 2
