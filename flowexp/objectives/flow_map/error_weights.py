"""How the error of a row becomes its loss."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowexp.objectives.flow_map.leaps import Leap
from flowexp.objectives.flow_map.legs import Comparison
from flowexp.requirements import Part

__all__ = ["Adaptive", "AdaptiveByShare", "ErrorWeight", "Unchanged"]


class ErrorWeight(Part, ABC):
    """The loss of a row with a given error."""

    @abstractmethod
    def __call__(self, error: Tensor, leap: Leap, comparison: Comparison) -> Tensor:
        """The loss, (B,), of errors (B,)."""


class Unchanged(ErrorWeight):
    """The error itself."""

    def __call__(self, error: Tensor, leap: Leap, comparison: Comparison) -> Tensor:
        return error


class Adaptive(ErrorWeight):
    """``D / sg(D + c)^p``: rows with large errors D count less.

    Args:
        p: 0 = the error itself, 1/2 resembles pseudo-Huber, 1 = every row has the same weight.
        c: Keeps the weight finite, > 0.

    Source: Geng et al., MeanFlow, 2025, arXiv 2505.13447, eq. 22 (D is a sum over pixels there, p =
    1, c = 0.01 on ImageNet; p = 0.75, c = 0.001 on CIFAR-10 in the authors' code).
    """

    def __init__(self, *, p: float = 1.0, c: float = 1e-3) -> None:
        if not (p >= 0.0 and c > 0.0):
            raise ValueError(f"need p >= 0 and c > 0, got p={p}, c={c}")
        self.p = float(p)
        self.c = float(c)

    def __call__(self, error: Tensor, leap: Leap, comparison: Comparison) -> Tensor:
        return error / (error.detach() + self.c) ** self.p


class AdaptiveByShare(Adaptive):
    """``factor a D / sg(D + c)^p`` for rows with r < t, and :class:`Adaptive` for those with r = t.

    a is the relative length of the first leg, 1 for derivatives. alpha-Flow measures ``u - u_tgt``
    with factor 1; SoFlow the residual ``(u - u_tgt)/a`` with factor 1/2, so that the gradient is
    ``(w/a)(u - u_tgt) du``, ``w = (D + c)^-p``, with D a mean over pixels in both.

    Args:
        p: As in :class:`Adaptive`.
        c: The same.
        factor: Of rows with r < t, > 0.
        per_output: Whether the loss is divided by ``|du/dF|``, so that its gradient in the
            network's output F does not depend on the times; that is 1 with Euler's jump.

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
