"""The quantity of a flow map that is regressed."""

from abc import ABC, abstractmethod

from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.objectives.flow_map.leaps import Leap
from flowexp.objectives.flow_map.legs import Comparison
from flowexp.objectives.premetrics import Premetric
from flowexp.requirements import Part

__all__ = ["AverageVelocity", "EndPoint", "Regressed", "Residual"]


class Regressed(Part, ABC):
    """The difference of prediction and target that a loss measures.

    Attributes:
        measures_itself: Whether it needs no premetric.
    """

    measures_itself: bool = False

    @abstractmethod
    def difference(self, comparison: Comparison, leap: Leap) -> Tensor:
        """The difference, (B, ...), with gradient."""

    def error(self, comparison: Comparison, leap: Leap, premetric: Premetric | None) -> Tensor:
        """The measured difference, (B,), with gradient."""
        assert premetric is not None
        return premetric(self.difference(comparison, leap))

    def check(self) -> None:
        """Raise ``UsageError`` if a file is missing; most need none."""


class AverageVelocity(Regressed):
    """``u - u_tgt``."""

    def difference(self, comparison: Comparison, leap: Leap) -> Tensor:
        return comparison.prediction - comparison.target


class Residual(Regressed):
    """``(u - u_tgt)/a``: its scale does not depend on a; for a -> 0 it is MeanFlow's residual."""

    def difference(self, comparison: Comparison, leap: Leap) -> Tensor:
        difference = comparison.prediction - comparison.target
        return difference / expand_as(comparison.share, difference)


class EndPoint(Regressed):
    """``X_{t->r}(x_t) - X_{s->r}(x_s) = -(t - r)(u - u_tgt)``: the difference of end points."""

    def difference(self, comparison: Comparison, leap: Leap) -> Tensor:
        difference = comparison.target - comparison.prediction
        return expand_as(leap.t - leap.r, difference) * difference
