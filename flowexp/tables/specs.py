"""What the file of a table or a claim states: rows, and the jobs behind them, before planning."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["TEST", "ClaimFile", "JobSpec", "RowSpec", "TableFile"]

TEST = "paired t, one-sided, 5 %"
"""The test behind a verdict; see :mod:`flowexp.tables.claims`."""


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """A job before it is planned.

    Attributes:
        verb: ``train``, ``pairs`` or ``calibrate``.
        experiment: Recipe of a training, or None.
        overrides: As on the command line.
        parents: Override key -> names of the jobs whose directories are its value.
        after: Names of jobs that must be done before, though the command does not name them, such
            as a calibration of a parent.
    """

    verb: str = "train"
    experiment: str | None = None
    overrides: tuple[str, ...] = ()
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    after: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of all jobs that must be done before."""
        return (*(name for several in self.parents.values() for name in several), *self.after)


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """A row of a table, or an arm of a claim.

    Attributes:
        label: Its name.
        job: Name of the training that is scored.
        eval: Overrides of the evaluation.
        eval_parents: Override key of the evaluation -> names of the jobs whose directories are its
            value, such as a sampler's refiner.
        calibrate: Overrides of a calibration of that training before it; None = none.
        relative_to: Overrides of another evaluation of the same training, by whose number this
            one's is divided; None = the number as it is. Claims only.
        published: The published number, or None.
        nfe: Network evaluations the publication states, or None.
        source: Where the number stands, or None.
        verified: Whether the number was held against the publication; else it is recalled.
    """

    label: str
    job: str
    eval: tuple[str, ...] = ()
    eval_parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    calibrate: tuple[str, ...] | None = None
    relative_to: tuple[str, ...] | None = None
    published: float | None = None
    nfe: float | None = None
    source: str | None = None
    verified: bool = False


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """A table as its file states it; see the attributes of :class:`RowSpec` and :class:`JobSpec`.

    Attributes:
        name: ``<paper>/<table>``.
        title: Its title.
        source: The publication.
        metric: Option of the group ``metric``.
        protocol: What the publication says of its numbers.
        jobs: Every training, pair set and calibration by name; those of rows by their labels.
        rows: In the order of the publication.
    """

    name: str
    title: str
    source: str
    metric: str
    protocol: Mapping[str, Any]
    jobs: Mapping[str, JobSpec]
    rows: tuple[RowSpec, ...]


@dataclass(frozen=True, kw_only=True)
class ClaimFile:
    """A claim as its file states it.

    Attributes:
        name: ``<paper>/<claim>``.
        title: The claimed effect, one sentence.
        source: The publication.
        published: The published figures, as text.
        metric: Option of the group ``metric``.
        direction: Whether ``lower`` or ``higher`` is better.
        seeds: Training seeds.
        num_samples: Samples of each evaluation.
        test: Name of the test.
        budget: The smallest budget that pays for it.
        jobs: Every job by name.
        rows: The arms; the last is claimed to be better than the others.
    """

    name: str
    title: str
    source: str
    published: str
    metric: str
    direction: Literal["lower", "higher"]
    seeds: tuple[int, ...]
    num_samples: int
    test: str
    budget: str
    jobs: Mapping[str, JobSpec]
    rows: tuple[RowSpec, ...]
