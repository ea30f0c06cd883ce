"""Measures of the deviation of a prediction from its target, per sample."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from flowexp.identity import Stored

__all__ = [
    "L1",
    "L2",
    "ElementwisePseudoHuber",
    "Premetric",
    "PseudoHuber",
    "SquaredL2",
    "SquaredL2PerDimension",
    "SumOfSquares",
]


class Premetric(Stored, ABC):
    """A non-negative function of the difference d of two samples, 0 only for d = 0."""

    @abstractmethod
    def __call__(self, difference: Tensor) -> Tensor:
        """The value per sample, (B,), for a difference (B, ...)."""


class SquaredL2(Premetric):
    """``|d|^2 / N``, the mean square over all N dimensions of a sample.

    EDM sums over dimensions instead: a constant factor N, to which Adam is invariant unless
    gradients are clipped; see :class:`SumOfSquares`.
    """

    def __call__(self, difference: Tensor) -> Tensor:
        return difference.flatten(1).square().mean(dim=1)


class SquaredL2PerDimension(Premetric):
    """``|d|^2 / N^2``, the mean square divided by the number N of dimensions.

    With a learned log-variance weighting (``error_weight=log_variance``) the additional factor only
    shifts the log-variance.

    Source: NVIDIA's FastGen, ``sCM.py`` (``divide_x_0_spatial_dim``).
    """

    def __call__(self, difference: Tensor) -> Tensor:
        d = difference.flatten(1)
        return d.square().mean(dim=1) / d.shape[1]


class SumOfSquares(Premetric):
    """``factor |d|^2``, the sum over the dimensions of a sample.

    Clipping the norm of the gradient (``trainer.grad_clip``) acts on the gradient of this sum,
    ``factor N`` times that of :class:`SquaredL2`. Measured with a U-Net of 0.57 M parameters on a
    JPEG copy of CIFAR-10: a clip at 1 acts at every step of the sum; of the mean at 47 % of 400
    steps for the VE recipe (batch 128), at 1 % of 150 steps for PFGM's (512 charges).

    Args:
        factor: Constant before the sum, > 0.

    Source: Song et al., 2021, arXiv 2011.13456: yang-song/score_sde_pytorch, losses.py, halves the
    sum (``reduce_mean`` false, as its VE configs and PFGM have it).
    """

    def __init__(self, *, factor: float = 0.5) -> None:
        if not factor > 0.0:
            raise ValueError(f"factor is {factor}; expected a positive number")
        self.factor = float(factor)

    def __call__(self, difference: Tensor) -> Tensor:
        return self.factor * difference.flatten(1).square().sum(dim=1)


class L1(Premetric):
    """``mean_i |d_i|``, the mean absolute value.

    Source: Song et al., Consistency Models, 2023, arXiv 2303.01469 (loss norm "l1").
    """

    def __call__(self, difference: Tensor) -> Tensor:
        return difference.flatten(1).abs().mean(dim=1)


class L2(Premetric):
    """``|d| / sqrt(N)``, the root of the mean square; its slope at d = 0 is taken to be 0.

    Args:
        mean: False = ``|d|``, without the division by sqrt(N), as in the code of ECT and TCM.
    """

    later_options: ClassVar[Mapping[str, object]] = {"mean": True}

    def __init__(self, *, mean: bool = True) -> None:
        self.mean = mean

    def __call__(self, difference: Tensor) -> Tensor:
        d = difference.flatten(1)
        norm: Tensor = torch.linalg.vector_norm(d, dim=1)
        return norm / math.sqrt(d.shape[1]) if self.mean else norm


class PseudoHuber(Premetric):
    """``(sqrt(|d|^2 + c^2) - c) / N`` with ``c = c_per_dimension N``, unless c is given.

    c -> 0 is ``|d| / N``; c -> inf is ``|d|^2 / (2 c N)``.

    Args:
        c: Transition from the square to the norm, in units of ``|d|``, > 0; null = by a rule.
        c_per_dimension: Factor of the rule ``c = c_per_dimension N``, > 0.
        c_per_root: Factor of the rule ``c = c_per_root sqrt(N)``, > 0, used instead unless null.
        mean: False = without the division by N, as in the code of consistency models.

    Source: Lee et al., RF++, 2024, arXiv 2405.20320: c = 0.00054 N. Song & Dhariwal, iCT, 2023,
    arXiv 2310.14189: c = 0.00054 sqrt(N).
    """

    later_options: ClassVar[Mapping[str, object]] = {"c_per_root": None, "mean": True}

    def __init__(
        self,
        *,
        c: float | None = None,
        c_per_dimension: float = 0.00054,
        c_per_root: float | None = None,
        mean: bool = True,
    ) -> None:
        for name, value in (("c", c), ("c_per_root", c_per_root)):
            if value is not None and not value > 0.0:
                raise ValueError(f"{name} is {value}; expected a positive number or null")
        if not c_per_dimension > 0.0:
            raise ValueError(f"c_per_dimension is {c_per_dimension}; expected a positive number")
        self.c = c
        self.c_per_dimension = float(c_per_dimension)
        self.c_per_root = c_per_root
        self.mean = mean

    def transition(self, dimensions: int) -> float:
        """The constant c for samples of N dimensions."""
        if self.c is not None:
            return self.c
        if self.c_per_root is not None:
            return self.c_per_root * math.sqrt(dimensions)
        return self.c_per_dimension * dimensions

    def __call__(self, difference: Tensor) -> Tensor:
        """Computed as ``|d|^2 / (sqrt(|d|^2 + c^2) + c)``, which does not cancel."""
        d = difference.flatten(1)
        c = self.transition(d.shape[1])
        square = d.square().sum(dim=1)
        value = square / (torch.sqrt(square + c**2) + c)
        return value / d.shape[1] if self.mean else value


class ElementwisePseudoHuber(Premetric):
    """``mean_i (sqrt(d_i^2 + c^2) - c)``: each dimension bends at ``|d_i| = c``.

    c -> 0 is the mean of ``|d_i|``; c -> inf is ``|d|^2 / (2 c N)``. :class:`PseudoHuber` bends the
    norm of the whole sample instead.

    Args:
        c: Transition from the square to the absolute value, in units of one dimension, > 0.

    Source: Wang et al., Rectified Diffusion, 2024, arXiv 2410.07303, as in the authors' train.py
    (c = 0.001, on the data prediction). Their algorithm 4 shows the squared error of the noise.
    """

    def __init__(self, *, c: float = 0.001) -> None:
        if not c > 0.0:
            raise ValueError(f"c is {c}; expected a positive number")
        self.c = float(c)

    def __call__(self, difference: Tensor) -> Tensor:
        """Computed as ``d^2 / (sqrt(d^2 + c^2) + c)``, which does not cancel."""
        square = difference.flatten(1).square()
        return (square / (torch.sqrt(square + self.c**2) + self.c)).mean(dim=1)
