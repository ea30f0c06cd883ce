"""What of a flow map is regressed."""

from abc import ABC, abstractmethod

from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.objectives.flow_map.leaps import Leap
from flowexp.objectives.flow_map.legs import Comparison
from flowexp.objectives.premetrics import Premetric
from flowexp.requirements import Part

__all__ = ["AverageVelocity", "EndPoint", "Regressed", "Residual"]


class Regressed(Part, ABC):
    """The difference that a loss measures."""

    @abstractmethod
    def difference(self, comparison: Comparison, leap: Leap) -> Tensor:
        """(B, ...), with gradient."""

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
    """``(u - u_tgt)/a``: of the same size for legs of all lengths, and MeanFlow's for a -> 0."""

    def difference(self, comparison: Comparison, leap: Leap) -> Tensor:
        difference = comparison.prediction - comparison.target
        return difference / expand_as(comparison.share, difference)


class EndPoint(Regressed):
    """``X_{t->r}(x_t) - X_{s->r}(x_s) = -(t - r)(u - u_tgt)``: where both ways end."""

    def difference(self, comparison: Comparison, leap: Leap) -> Tensor:
        difference = comparison.target - comparison.prediction
        return expand_as(leap.t - leap.r, difference) * difference
