"""Truncated distributions of one time, a point mass at one time, and a heavy-tailed law."""

import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.paths import Schedule
from flowexp.paths.base import as_float64
from flowexp.requirements import Extended, Parts, Unmet
from flowexp.timesteps.base import TimestepDistribution, needs_of, spread
from flowexp.timesteps.quantile_tables import QuantileTable

__all__ = ["AtBoundary", "LogStudent", "Truncated"]


class Truncated(TimestepDistribution):
    """A law truncated to (lower, upper).

    Args:
        law: The law before truncation.
        lower: Lower bound, >= 0, in the law's own values (times or noise levels).
        upper: Upper bound, > lower; may be infinite.

    Raises:
        ValueError: The bounds are out of range.

    Source: Lee et al., TCM, 2024, arXiv 2410.14895, and the authors' code (first stage:
    log-normal with -1.1 and 2 from 0.002 to 80).
    """

    def __init__(
        self, law: TimestepDistribution, *, lower: float = 0.002, upper: Extended = 80.0
    ) -> None:
        if not 0.0 <= lower < upper:
            raise ValueError(f"need 0 <= lower < upper, got lower={lower}, upper={upper}")
        self.law = law
        self.in_nsr = law.in_nsr
        self.lower = float(lower)
        self.upper = float(upper)

    @property
    def support(self) -> tuple[float, float]:
        low, high = self.law.support
        return max(low, self.lower), min(high, self.upper)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """What the law needs."""
        yield from needs_of("law", self.law, parts)

    def quantile(self, u: Tensor) -> Tensor:
        low, high = self._ends(u.device)
        value = self.law.quantile(torch.lerp(low.expand_as(u), high.expand_as(u), as_float64(u)))
        return value.clamp(self.lower, self.upper)

    def cdf(self, value: Tensor) -> Tensor:
        low, high = self._ends(value.device)
        inside = as_float64(value).clamp(self.lower, self.upper)
        return ((self.law.cdf(inside) - low) / (high - low)).clamp(0.0, 1.0)

    def pdf(self, value: Tensor) -> Tensor:
        value = as_float64(value)
        low, high = self._ends(value.device)
        inside = (value >= self.lower) & (value <= self.upper)
        return torch.where(inside, self.law.pdf(value) / (high - low), 0.0)

    def _ends(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The whole law's distribution function at both ends, (2,)."""
        ends = torch.tensor([self.lower, self.upper], dtype=torch.float64, device=device)
        low, high = self.law.cdf(ends)
        return low, high


class _WholeLogStudent(TimestepDistribution):
    """``ln(sigma / alpha) = mean + scale T`` without ends: its draws may be infinite."""

    in_nsr = True

    def __init__(self, *, mean: float, scale: float, df: float) -> None:
        if not scale > 0.0:
            raise ValueError(f"scale is {scale}; expected a positive number")
        if not df > 0.0:
            raise ValueError(f"df is {df}; expected a positive number")
        self.mean = float(mean)
        self.scale = float(scale)
        self.df = float(df)

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, math.inf

    def quantile(self, u: Tensor) -> Tensor:
        from scipy.special import stdtrit

        z = torch.as_tensor(stdtrit(self.df, as_float64(u).cpu().numpy())).to(u.device)
        return torch.exp(self.mean + self.scale * z)

    def cdf(self, value: Tensor) -> Tensor:
        from scipy.special import stdtr

        z = self._standardized(as_float64(value))
        return torch.as_tensor(stdtr(self.df, z.cpu().numpy())).to(value.device)

    def pdf(self, value: Tensor) -> Tensor:
        """Density in the noise level, not in its logarithm."""
        value = as_float64(value)
        df, inside = self.df, value > 0.0
        safe = torch.where(inside, value, 1.0)
        log_norm = math.lgamma(0.5 * (df + 1.0)) - math.lgamma(0.5 * df)
        log_norm -= 0.5 * math.log(df * math.pi) + math.log(self.scale)
        log_density = log_norm - 0.5 * (df + 1.0) * torch.log1p(self._standardized(safe) ** 2 / df)
        return torch.where(inside, torch.exp(log_density) / safe, 0.0)

    def _standardized(self, value: Tensor) -> Tensor:
        return (torch.log(value.clamp(min=0.0)) - self.mean) / self.scale


class LogStudent(Truncated):
    """``ln(sigma / alpha) = mean + scale T``, T from Student's t, truncated to (lower, upper).

    For small df the density of T falls as ``1/|T|`` in the tails. The distribution function is
    scipy's, in float64 on the CPU. Its inverse is interpolated in a table that is made once per
    process and device, to a relative error of 1e-10, unless ``lower`` is 0.

    Args:
        mean: Median of ln(sigma / alpha) before truncation.
        scale: Scale of T, > 0.
        df: Degrees of freedom, > 0.
        lower: Lowest noise level, >= 0.
        upper: Highest noise level, > lower.

    Raises:
        ValueError: A number is out of range.

    Source: Lee et al., TCM, 2024, arXiv 2410.14895, and the authors' code (second stage).
    """

    def __init__(
        self,
        *,
        mean: float = 0.0,
        scale: float = 0.2,
        df: float = 0.01,
        lower: float = 1.0,
        upper: float = 80.0,
    ) -> None:
        law = _WholeLogStudent(mean=mean, scale=scale, df=df)
        super().__init__(law, lower=lower, upper=upper)
        self.law: _WholeLogStudent = law

    def quantile(self, u: Tensor) -> Tensor:
        # The nodes need finite ends in the logarithm.
        if not (self.lower > 0.0 and math.isfinite(self.upper)):
            return super().quantile(u)
        law = self.law
        table = _table(law.mean, law.scale, law.df, self.lower, self.upper, u.device)
        return table(as_float64(u)).clamp(self.lower, self.upper)


_NODES = 16384


@functools.lru_cache(maxsize=16)
def _table(
    mean: float, scale: float, df: float, lower: float, upper: float, device: torch.device
) -> QuantileTable:
    """The quantiles of a truncated :class:`LogStudent`, at nodes evenly spaced in asinh(T)."""
    law = Truncated(_WholeLogStudent(mean=mean, scale=scale, df=df), lower=lower, upper=upper)
    low, high = (math.asinh((math.log(end) - mean) / scale) for end in (lower, upper))
    z = torch.linspace(low, high, _NODES, dtype=torch.float64).sinh()
    value = torch.exp(mean + scale * z).clamp(lower, upper)
    return QuantileTable(law.cdf(value), value=value, density=law.pdf(value)).to(device)


class AtBoundary(TimestepDistribution):
    """A law in which a share of the draws is replaced by one fixed value.

    In a batch of n times these are exactly ``floor(share n)``, evenly spread.

    Args:
        law: Distribution of the other draws.
        value: The fixed value, >= 0, in the law's own values (times or noise levels).
        share: Share of the fixed value, in [0, 1).

    Raises:
        ValueError: value or share is out of range.

    Source: Lee et al., TCM, 2024, arXiv 2410.14895 (rows on the boundary between two stages), and
    the authors' code (value 1 + 1e-8; share 0.25 in its commands, 0.05 by default).
    """

    def __init__(
        self, law: TimestepDistribution, *, value: float = 1.0 + 1e-8, share: float = 0.25
    ) -> None:
        if not 0.0 <= value < math.inf:
            raise ValueError(f"value is {value}; expected a finite number >= 0")
        if not 0.0 <= share < 1.0:
            raise ValueError(f"share is {share}; expected a number in [0, 1)")
        self.law = law
        self.in_nsr = law.in_nsr
        self.value = float(value)
        self.share = float(share)

    @property
    def support(self) -> tuple[float, float]:
        low, high = self.law.support
        return min(low, self.value), max(high, self.value)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """What the law needs."""
        yield from needs_of("law", self.law, parts)

    def quantile(self, u: Tensor) -> Tensor:
        u = as_float64(u)
        rest = 1.0 - self.share
        before = rest * self.law.cdf(torch.full_like(u, self.value))
        after = before + self.share
        outside = torch.where(u < before, u, u - self.share) / rest
        value = self.law.quantile(outside.clamp(2.0**-53, 1.0 - 2.0**-53))
        return torch.where((u >= before) & (u <= after), self.value, value)

    def cdf(self, value: Tensor) -> Tensor:
        reached = (as_float64(value) >= self.value).to(torch.float64)
        return (1.0 - self.share) * self.law.cdf(value) + self.share * reached

    def pdf(self, value: Tensor) -> Tensor:
        """Density of the other draws; the fixed value has the additional mass ``share``."""
        return (1.0 - self.share) * self.law.pdf(value)

    def times(self, u: Tensor, *, schedule: Schedule) -> Tensor:
        """Times of a batch of ``len(u)`` rows with the exact share of the fixed value."""
        value = self.law.quantile(u)
        value[spread(len(u), self.share).to(u.device)] = self.value
        return schedule.time_at_nsr(value) if self.in_nsr else value
