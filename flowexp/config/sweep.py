"""The outcome of a sweep: its jobs, their overrides, and the reasons of failures."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from flowexp.config.hydra_internals import SweepHydra
from flowexp.errors import JobsFailedError, UsageError
from flowexp.files import expanded

__all__ = ["Sweep", "SweepJob", "remove_unused"]


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """One job of a sweep.

    Attributes:
        number: As in ``job 2``.
        name: The overrides that not all jobs share: ``seed=1 path.D=64``.
        directory: Its output directory.
        config: Its config.
        failure: The exception if it failed, else None.
    """

    number: int
    name: str
    directory: Path
    config: dict[str, Any]
    failure: Exception | None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The jobs of a finished sweep and their common folder."""

    directory: Path
    jobs: tuple[SweepJob, ...]

    @classmethod
    def of(cls, hydra: SweepHydra) -> Self:
        """The sweep that Hydra has run."""
        names = _names([list(one.overrides or ()) for one in hydra.returned])
        jobs = [_job(one, name) for one, name in zip(hydra.returned, names, strict=True)]
        return cls(directory=Path(hydra.sweep_directory), jobs=tuple(jobs))

    @property
    def done(self) -> list[SweepJob]:
        """The jobs that succeeded."""
        return [job for job in self.jobs if job.failure is None]

    @property
    def failed(self) -> list[SweepJob]:
        """The jobs that failed."""
        return [job for job in self.jobs if job.failure is not None]

    @property
    def refused(self) -> UsageError | None:
        """The first job's error if every job was refused with an error the user can fix."""
        errors = [job.failure for job in self.jobs if isinstance(job.failure, UsageError)]
        return errors[0] if errors and len(errors) == len(self.jobs) else None

    def conclude(self, after_sweep: Callable[[Self], None] | None) -> None:
        """Report failed jobs with their reasons, then call ``after_sweep`` if any job succeeded.

        Raises:
            UsageError: Every job was refused.
            JobsFailedError: Some jobs failed.
        """
        if self.refused:
            (self.directory / "multirun.yaml").unlink(missing_ok=True)
            remove_unused(self.directory)
            raise self.refused
        if self.failed:
            lines = [f"  job {job.number} ({job.name}): {_reason(job)}" for job in self.failed]
            head = f"\nflowexp: {len(self.failed)} of {len(self.jobs)} jobs failed:"
            sys.stdout.flush()  # in a file of both, the jobs' own output comes first
            print(head, *lines, sep="\n", file=sys.stderr, flush=True)
        if after_sweep is not None and self.done:
            after_sweep(self)
        if self.failed:
            raise JobsFailedError(len(self.failed)) from self.failed[0].failure


def _job(returned: JobReturn, name: str) -> SweepJob:
    hydra, failed = returned.hydra_cfg, returned.status != JobStatus.COMPLETED
    config: Any = OmegaConf.to_container(returned.cfg) if returned.cfg is not None else {}
    return SweepJob(
        number=int(hydra.hydra.job.num) if hydra is not None else 0,
        name=name,
        directory=Path(hydra.hydra.runtime.output_dir) if hydra is not None else Path(),
        config=config,
        failure=returned._return_value if failed else None,
    )


def _names(overrides: Sequence[Sequence[str]]) -> list[str]:
    """For each job, the overrides that some other job lacks."""
    return [
        " ".join(text for text in own if any(text not in other for other in overrides))
        or "the only one"
        for own in overrides
    ]


def _reason(job: SweepJob) -> str:
    """The first line of an error, with its class unless the user can fix it."""
    text = next(iter(str(job.failure).splitlines()), "")
    return text if isinstance(job.failure, UsageError) else f"{type(job.failure).__name__}: {text}"


def remove_unused(directory: Path) -> None:
    """Remove the directory of a refused job and the dated folders above it, if they are empty."""
    folder = directory.resolve()
    for _ in range(1 + 3):
        if folder in (Path.cwd(), expanded("~")) or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()
        folder = folder.parent
