"""How the error of a row becomes its loss."""

from abc import ABC, abstractmethod

from torch import Tensor

from flowexp.objectives.flow_map.leaps import Leap
from flowexp.objectives.flow_map.legs import Comparison
from flowexp.requirements import Part

__all__ = ["Adaptive", "ErrorWeight", "Unchanged"]


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
