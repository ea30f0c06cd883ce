"""Rows with their jobs, and how they are scored."""

from collections.abc import Iterable
from dataclasses import dataclass

from flowexp.tables.jobs import Job
from flowexp.tables.specs import RowSpec

__all__ = ["Evaluations", "PlannedRow", "all_jobs"]


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """How rows are scored.

    Attributes:
        metric: Option of the group ``metric``.
        num_samples: Samples of an evaluation.
        repeats: Disjoint ranges of seeds.
        scaled: Whether these are not the published ones.
    """

    metric: str
    num_samples: int
    repeats: int = 1
    scaled: bool = False

    def overrides(self) -> tuple[str, ...]:
        """For ``flowexp eval``."""
        return (
            f"metric={self.metric}",
            f"num_samples={self.num_samples}",
            f"repeats={self.repeats}",
        )


@dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """A row with its jobs.

    Attributes:
        spec: The row.
        seeds: Training seeds.
        evaluations: One per seed.
        baselines: One per seed if the row's number is relative to another evaluation, else none.
        scaled: Whether the budget changed anything that determines the number.
        dataset: Option of the group ``dataset`` as published.
    """

    spec: RowSpec
    seeds: tuple[int, ...]
    evaluations: tuple[Job, ...]
    baselines: tuple[Job, ...]
    scaled: bool
    dataset: str

    @property
    def targets(self) -> tuple[Job, ...]:
        """The jobs whose results make the row."""
        return (*self.evaluations, *self.baselines)


def all_jobs(rows: Iterable[PlannedRow]) -> list[Job]:
    """Every job of the rows once, needed ones first."""
    found: dict[str, Job] = {}
    for row in rows:
        for target in row.targets:
            for job in target.ancestry():
                found.setdefault(job.identity, job)
    return list(found.values())
