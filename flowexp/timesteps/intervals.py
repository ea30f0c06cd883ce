"""Distributions of pairs of times r <= t for flow maps, built from one-time distributions."""

from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.paths import Schedule
from flowexp.requirements import Parts, Unmet, all_of
from flowexp.timesteps.base import IntervalDistribution, TimestepDistribution, needs_of

__all__ = ["Capped", "GapAndEnd", "Sorted", "StartAndBelow", "ToData", "drawn_end"]


def _below(law: TimestepDistribution, u: Tensor, bound: Tensor, *, schedule: Schedule) -> Tensor:
    """Quantiles at ``u`` of a law truncated to values below ``bound``."""
    value = schedule.nsr(bound) if law.in_nsr else bound
    return torch.minimum(law.times(u * law.cdf(value), schedule=schedule), bound)


def drawn_end(name: str, law: TimestepDistribution) -> str | None:
    """``drawn_end`` of a law that is the argument ``name`` of another."""
    return None if law.drawn_end is None else f"{name}.{law.drawn_end}"


class _OfOneLaw(IntervalDistribution):
    """Times made of draws from one law."""

    def __init__(self, law: TimestepDistribution, *, diagonal: float = 0.0) -> None:
        super().__init__(diagonal=diagonal)
        self.law = law
        self.drawn_end = drawn_end("law", law)

    @property
    def support(self) -> tuple[float, float]:
        return self.law.support

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """What the law needs."""
        yield from needs_of("law", self.law, parts)


class Sorted(_OfOneLaw):
    """``t = max(a, b)``, ``r = min(a, b)`` of two independent draws from one law.

    Args:
        law: Distribution of a and b.
        diagonal: Share of the rows with r = t, in [0, 1]. MeanFlow's CIFAR-10 recipe has 0.25, its
            ImageNet recipe 0.75, improved MeanFlow 0.5.

    Source: Geng et al., MeanFlow, 2025, arXiv 2505.13447, section 4.3; Boffi et al., 2025, arXiv
    2505.18825 (uniform).
    """

    def quantile(self, u: Tensor, *, schedule: Schedule) -> Tensor:
        times = self.law.times(u, schedule=schedule)
        return torch.stack([times.amax(1), times.amin(1)], dim=1)


class _StartAndEnd(IntervalDistribution):
    """A law of t and one of r, each with its own needs."""

    def __init__(
        self, *, start: TimestepDistribution, end: TimestepDistribution, diagonal: float = 0.0
    ) -> None:
        super().__init__(diagonal=diagonal)
        self.start = start
        self.end = end
        self.drawn_end = drawn_end("start", start)

    @property
    def support(self) -> tuple[float, float]:
        return self.start.support

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """What both laws need."""
        yield from all_of(needs_of("start", self.start, parts), needs_of("end", self.end, parts))


class Capped(_StartAndEnd):
    """t and r from two laws, with r capped at ``t - min_gap``: ``r = max(0, min(r, t - min_gap))``.

    With ``min_gap = 0``, rows whose r is drawn above t also have r = t, in addition to the share
    ``diagonal``.

    Args:
        start: Distribution of t.
        end: Distribution of r before the cap.
        diagonal: Share of the rows with r = t, in [0, 1].
        min_gap: Smallest ``t - r``, >= 0; 1e-4 in SoFlow's code.

    Raises:
        ValueError: diagonal or min_gap is out of range.

    Source: Geng et al., MeanFlow, 2025, arXiv 2505.13447, the authors' later code for CIFAR-10
    ("v1": logit-normal, -0.6 and 1.6 for t, -4 and 1.6 for r, diagonal 0.25); Luo et al., SoFlow,
    2025, arXiv 2512.15657 (-0.9 and -4, 1.6 for both).
    """

    def __init__(
        self,
        *,
        start: TimestepDistribution,
        end: TimestepDistribution,
        diagonal: float = 0.0,
        min_gap: float = 0.0,
    ) -> None:
        super().__init__(start=start, end=end, diagonal=diagonal)
        if not min_gap >= 0.0:
            raise ValueError(f"min_gap is {min_gap}; expected a number >= 0")
        self.min_gap = float(min_gap)

    def quantile(self, u: Tensor, *, schedule: Schedule) -> Tensor:
        t = self.start.times(u[:, 0], schedule=schedule)
        r = self.end.times(u[:, 1], schedule=schedule)
        return torch.stack([t, torch.minimum(r, (t - self.min_gap).clamp(min=0.0))], dim=1)


class StartAndBelow(_StartAndEnd):
    """t from one law, and r from another truncated to r < t.

    Args:
        start: Distribution of t.
        end: Distribution of r before the truncation.
        diagonal: Share of the rows with r = t, in [0, 1].

    Source: Zhang et al., alpha-Flow, 2025, arXiv 2510.20771, the authors' code (``truncated``).
    """

    def quantile(self, u: Tensor, *, schedule: Schedule) -> Tensor:
        t = self.start.times(u[:, 0], schedule=schedule)
        return torch.stack([t, _below(self.end, u[:, 1], t, schedule=schedule)], dim=1)


class GapAndEnd(IntervalDistribution):
    """The gap ``g = t - r`` from one law, r from another truncated to ``r < 1 - g``; ``t = r + g``.

    The third time, drawn from the untruncated law of r, is the time of a flow-matching row of the
    same pair.

    Args:
        gap: Distribution of g, on [0, 1].
        end: Distribution of r before the truncation, and of the third time.

    Source: Zhou et al., TVM, 2025, arXiv 2511.19797, and the authors' code (logit-normal, -0.8 and
    1 for the gap, -0.4 and 1 for r).
    """

    columns = ("t", "r", "diagonal")
    uniforms = 3

    def __init__(self, *, gap: TimestepDistribution, end: TimestepDistribution) -> None:
        super().__init__()
        self.anchored = 1.0
        self.gap = gap
        self.end = end

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Times in [0, 1], and what both laws need."""
        needs = all_of(needs_of("gap", self.gap, parts), needs_of("end", self.end, parts))
        yield from list(super().needs(parts)) or needs

    def quantile(self, u: Tensor, *, schedule: Schedule) -> Tensor:
        gap = self.gap.times(u[:, 0], schedule=schedule)
        r = _below(self.end, u[:, 1], 1.0 - gap, schedule=schedule)
        return torch.stack([r + gap, r, self.end.times(u[:, 2], schedule=schedule)], dim=1)


class ToData(_OfOneLaw):
    """t from one law, and r = 0, as for continuous-time consistency models.

    Args:
        law: Distribution of t.

    Source: Lu & Song, sCM, 2024, arXiv 2410.11081 (log-normal noise levels).
    """

    ends_early = False
    uniforms = 1

    def __init__(self, law: TimestepDistribution) -> None:
        super().__init__(law)

    def quantile(self, u: Tensor, *, schedule: Schedule) -> Tensor:
        t = self.law.times(u[:, 0], schedule=schedule)
        return torch.stack([t, torch.zeros_like(t)], dim=1)
