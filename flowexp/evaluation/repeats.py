"""The same score on disjoint ranges of seeds: mean, spread and minimum."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from flowexp.evaluation.score import ScoreResult
from flowexp.metrics.protocol import spread_of

__all__ = ["Summary", "seed_ranges", "summarize"]


@dataclass(frozen=True)
class Summary:
    """One metric over several evaluations.

    EDM and PFGM++ publish the minimum of three; the expectation of that is 0.85 standard deviations
    below the mean, so it compares with other minima only.

    Attributes:
        title: Full name of the metric.
        key: Its key, with the sample count of one evaluation.
        values: One per range of seeds.
    """

    title: str
    key: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the ranges."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the ranges, see :func:`spread_of`."""
        return spread_of(self.values)

    @property
    def minimum(self) -> float:
        """The smallest value: what EDM's tables report."""
        return min(self.values)


def seed_ranges(count: int, *, repeats: int, first: int = 0) -> list[list[int]]:
    """``repeats`` disjoint ranges of ``count`` consecutive seeds.

    Raises:
        ValueError: Fewer than one seed or range.
    """
    if count < 1 or repeats < 1:
        raise ValueError(f"count={count}, repeats={repeats}; allowed: integers >= 1")
    return [list(range(first + k * count, first + (k + 1) * count)) for k in range(repeats)]


def summarize(results: Sequence[ScoreResult]) -> list[Summary]:
    """One summary per metric.

    Args:
        results: Evaluations of the same metrics on different seeds.
    """
    by_key: dict[str, list[float]] = {}
    titles: dict[str, str] = {}
    for result in results:
        for record in result.records:
            by_key.setdefault(record.key, []).append(record.value)
            titles[record.key] = record.title
    return [Summary(titles[key], key, tuple(values)) for key, values in by_key.items()]
