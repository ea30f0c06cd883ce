"""Adaptive loss weights: functions of the error of a row."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowexp.objectives.flow_map.leaps import Leap
from flowexp.objectives.flow_map.legs import Comparison
from flowexp.requirements import Part

__all__ = ["Adaptive", "AdaptiveByShare", "ErrorWeight", "Unweighted"]


class ErrorWeight(Part, ABC):
    """Maps the error of a row to its loss.

    Attributes:
        per_output: Whether it needs the ``output_scale`` of the rows.
    """

    per_output: bool = False

    @abstractmethod
    def __call__(self, error: Tensor, leap: Leap, comparison: Comparison) -> Tensor:
        """The loss, (B,), of errors (B,)."""


class Unweighted(ErrorWeight):
    """The error itself."""

    def __call__(self, error: Tensor, leap: Leap, comparison: Comparison) -> Tensor:
        return error


class Adaptive(ErrorWeight):
    """Adaptive weight ``D / sg(D + c)^p``, which down-weights rows with large errors D.

    Args:
        p: Exponent, >= 0: 0 = the error itself; 1/2 resembles pseudo-Huber; with 1 every row has
            about the same loss.
        c: Keeps the weight finite, > 0.

    Raises:
        ValueError: p or c is out of range.

    Source: Geng et al., MeanFlow, 2025, arXiv 2505.13447, eq. 22, with D the sum over pixels. The
    authors' code has p = 1, c = 0.01 on ImageNet and p = 0.75, c = 0.001 on CIFAR-10.
    """

    def __init__(self, *, p: float = 1.0, c: float = 1e-3) -> None:
        if not (p >= 0.0 and c > 0.0):
            raise ValueError(f"need p >= 0 and c > 0, got p={p}, c={c}")
        self.p = float(p)
        self.c = float(c)

    def __call__(self, error: Tensor, leap: Leap, comparison: Comparison) -> Tensor:
        return error / (error.detach() + self.c) ** self.p


class AdaptiveByShare(Adaptive):
    """``factor a D / sg(D + c)^p`` in rows with r < t, and :class:`Adaptive` in rows with r = t.

    a is the relative length of the first leg, 1 for derivatives. alpha-Flow measures ``u - u_tgt``
    with factor 1. SoFlow measures the residual ``(u - u_tgt)/a`` with factor 1/2, so that the
    gradient is ``(w/a)(u - u_tgt) du`` with ``w = (D + c)^-p``. D is a mean over pixels in both.

    Args:
        p: As in :class:`Adaptive`.
        c: As in :class:`Adaptive`.
        factor: Loss factor of rows with r < t, > 0.
        per_output: Whether the loss is divided by ``|du/dF|``, so that the scale of its gradient in
            the network's output F does not depend on the times. With Euler's jump it is 1.

    Raises:
        ValueError: p, c or factor is out of range.

    Source: Zhang et al., alpha-Flow, 2025, arXiv 2510.20771, and Luo et al., SoFlow, 2025, arXiv
    2512.15657, with the authors' code (SoFlow's loss there is a surrogate with this gradient).
    """

    def __init__(
        self, *, p: float = 1.0, c: float = 1e-3, factor: float = 1.0, per_output: bool = False
    ) -> None:
        super().__init__(p=p, c=c)
        if not factor > 0.0:
            raise ValueError(f"factor is {factor}; expected a positive number")
        self.factor = float(factor)
        self.per_output = per_output

    def __call__(self, error: Tensor, leap: Leap, comparison: Comparison) -> Tensor:
        weight = torch.where(leap.r < leap.t, self.factor * comparison.share, 1.0)
        if self.per_output and leap.output_scale is not None:
            weight = weight / leap.output_scale
        return weight * super().__call__(error, leap, comparison)
