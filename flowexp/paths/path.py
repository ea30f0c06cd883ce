"""The path: a schedule joined with a source."""

import math
from dataclasses import dataclass

from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.identity import Identified
from flowexp.paths.base import Schedule, Source, as_float64
from flowexp.paths.sources import Gaussian, StudentT
from flowexp.requirements import Extended

__all__ = ["Path", "PathPoint"]


@dataclass(frozen=True)
class PathPoint:
    """One point of a conditional path: the pair (x, e), its time, and what lies there.

    Attributes:
        x: Data, (B, ...).
        e: Source, (B, ...).
        t: Times, (B,), float64.
        x_t: ``alpha x + sigma e``, (B, ...).
        velocity: ``alpha' x + sigma' e``, (B, ...).
    """

    x: Tensor
    e: Tensor
    t: Tensor
    x_t: Tensor
    velocity: Tensor

    @property
    def data(self) -> Tensor:
        """The data x, under the name that predictions use."""
        return self.x

    @property
    def noise(self) -> Tensor:
        """The source e, under the name that predictions use."""
        return self.e


class Path(Identified):
    """A schedule together with a source.

    Gaussian source + VE = EDM, + VP = DDPM, + linear = rectified flow; a Student-t source with D
    degrees of freedom + VE = PFGM++ (D = 1 is PFGM, D = inf is EDM), and every other schedule
    composes with it.

    Args:
        schedule: Alpha and sigma.
        D: Degrees of freedom of the source, a positive real; ``inf`` if it is not Student-t.
        source: Another distribution of e: any for ``D = inf``, else a variant of Student-t with
            the same D; by default D decides.

    Source: Xu et al., PFGM++, 2023, arXiv 2302.04265: x + R u with R^2/r^2 ~ beta-prime(N/2, D/2),
    r = sigma sqrt(D), is x + sigma e with e multivariate Student-t (D degrees of freedom).
    """

    def __init__(
        self, schedule: Schedule, *, D: Extended = math.inf, source: Source | None = None
    ) -> None:
        student = StudentT(D)
        if source is not None and math.isfinite(D) and getattr(source, "D", None) != D:
            raise ValueError(
                f"D is {D} and source is {source!r}; give one of them, not both, or a source of "
                f"the same D"
            )
        self.schedule = schedule
        self.source = source or (Gaussian() if student.is_gaussian else student)
        self.D = self.source.D if isinstance(self.source, StudentT) else math.inf

    def point(self, x: Tensor, e: Tensor, t: Tensor) -> PathPoint:
        """The conditional path of the pairs (x, e), (B, ...), at times t, (B,)."""
        t = as_float64(t)
        c = self.schedule.coefficients(t)
        x_t = expand_as(c.alpha, x) * x + expand_as(c.sigma, x) * e
        v = expand_as(c.d_alpha, x) * x + expand_as(c.d_sigma, x) * e
        return PathPoint(x=x, e=e, t=t, x_t=x_t, velocity=v)

    def start(self, e: Tensor, t: Tensor) -> Tensor:
        """The state from which sampling starts at time ``t``: ``sigma(t) e`` (no data is known).

        Exact where alpha(t) = 0; elsewhere (VE, VP) it neglects ``alpha(t) x``, as is usual.
        """
        return expand_as(self.schedule.coefficients(as_float64(t)).sigma, e) * e

    def identity(self) -> str:
        return f"Path({self.schedule.identity()}, D={self.D}, source={self.source.identity()})"
