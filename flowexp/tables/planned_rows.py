"""Rows with their jobs, and how they are scored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flowexp.tables.jobs import TableJob
from flowexp.tables.syntax import Arm, Row

__all__ = ["Circumstances", "PlannedRow", "Scoring", "all_jobs"]


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """The user's choices besides the name of a table.

    Attributes:
        root: Folder of all jobs.
        seeds: Training seeds in place of the budget's or claim's; None = those.
        extra: Verb -> overrides of all its jobs.
        config_dir: Folder with further groups.
    """

    budget: str
    root: Path
    seeds: Sequence[int] | None = None
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)
    config_dir: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How rows are scored, on ``repeats`` ranges of seeds; ``scaled`` if not as published."""

    metric: str
    num_samples: int
    repeats: int = 1
    scaled: bool = False

    def overrides(self) -> tuple[str, ...]:
        """For ``flowexp eval``."""
        sampled = (f"num_samples={self.num_samples}", f"repeats={self.repeats}")
        return (f"metric={self.metric}", *sampled)


@dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """A row with its jobs.

    Attributes:
        seeds: Training seeds.
        evaluations: One per seed.
        baselines: One per seed if the row's number is relative to another evaluation, else none.
        scaled: Whether the budget changed anything that determines the number.
        dataset: Option of the group ``dataset`` as published.
    """

    spec: Row | Arm
    seeds: tuple[int, ...]
    evaluations: tuple[TableJob, ...]
    baselines: tuple[TableJob, ...]
    scaled: bool
    dataset: str

    @property
    def targets(self) -> tuple[TableJob, ...]:
        """The jobs whose results make the row."""
        return (*self.evaluations, *self.baselines)


def all_jobs(rows: Iterable[PlannedRow]) -> list[TableJob]:
    """Every job of the rows once, needed ones first."""
    found: dict[str, TableJob] = {}
    for job in (one for row in rows for target in row.targets for one in target.ancestry()):
        found.setdefault(job.identity, job)
    return list(found.values())
