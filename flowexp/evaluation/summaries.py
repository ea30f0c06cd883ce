"""Several evaluations of the same metrics on disjoint ranges of seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowexp.evaluation.score import ScoreResult
from flowexp.metrics.protocol import MetricRecord, least, mean, spread_of

__all__ = ["Summary", "seed_ranges", "summarize"]


@dataclass(frozen=True)
class Summary:
    """One metric over several evaluations.

    EDM and PFGM++ publish the minimum of three; the expectation of that is 0.85 standard deviations
    below the mean, so it compares with other minima only.

    ``key`` contains the sample count of one evaluation; ``values`` are one per range of seeds.
    """

    title: str
    key: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the ranges."""
        return mean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the ranges, see :func:`spread_of`."""
        return spread_of(self.values)

    @property
    def minimum(self) -> float:
        """The smallest value, what EDM's tables report; nan if one is."""
        return least(self.values)


def seed_ranges(count: int, *, repeats: int, first: int = 0) -> list[list[int]]:
    """``repeats`` disjoint ranges of ``count`` consecutive seeds, both >= 1."""
    if count < 1 or repeats < 1:
        raise ValueError(f"count={count}, repeats={repeats}; allowed: integers >= 1")
    return [list(range(first + k * count, first + (k + 1) * count)) for k in range(repeats)]


def summarize(results: Sequence[ScoreResult]) -> list[Summary]:
    """One summary per metric of evaluations of the same metrics on different seeds."""
    found: dict[str, list[MetricRecord]] = {}
    for record in (record for result in results for record in result.records):
        found.setdefault(record.key, []).append(record)
    return [
        Summary(records[-1].title, key, tuple(record.value for record in records))
        for key, records in found.items()
    ]
