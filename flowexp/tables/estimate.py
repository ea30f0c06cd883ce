"""Estimates of the time that the jobs of a table take here, from a short trial of each kind."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowexp.config.seed_text import parse_seeds
from flowexp.errors import UsageError
from flowexp.tables.jobs import TableJob
from flowexp.tree import select

if TYPE_CHECKING:
    from flowexp.tables.probes import Trial

__all__ = ["Estimate", "Work", "duration", "estimated", "work_of"]

_START_SECONDS = 3.0
"""Time to start a job and to write its results."""

# Keys, or groups with all their keys, that the time of an image depends on.
_OF_TRAINING = (
    "network", "parameterization", "objective", "coupling", "augmentation", "timestep",
    "dataset.shape", "dataset.num_classes", "trainer.batch_size", "trainer.micro_batch",
    "trainer.precision",
)  # fmt: skip
_OF_SAMPLING = (
    "network", "parameterization", "sampler", "guidance", "task", "metric", "dataset.shape",
    "dataset.num_classes", "batch_size",
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """The work of a job: the ``key`` of its trial, and the number of images.

    ``key`` is None if no trial is possible, and ``words`` give the reason.
    """

    key: str | None
    images: int = 0
    words: str = ""


@dataclass(frozen=True)
class Estimate:
    """Seconds of a job, or None; ``words`` are the reason, or the costs that are left out."""

    seconds: float | None
    words: str = ""
    where: str = ""

    def __str__(self) -> str:
        if self.seconds is None:
            return f"not estimated: {self.words}"
        return duration(self.seconds) + (f" without {self.words}" if self.words else "")


def work_of(job: TableJob) -> Work:
    """The work of an unfinished job."""
    config = job.config
    if job.verb == "train":
        trainer = config["trainer"]
        return Work(_key("train", config, _OF_TRAINING), round(1000 * trainer["max_kimg"]))
    if job.verb == "calibrate":
        return Work(None, words="a calibration")
    count = config.get("num_samples") or config.get("num") or 0
    if config.get("seeds") is not None:
        count = len(parse_seeds(config["seeds"]))
    count *= config.get("repeats") or 1
    selection = config.get("selection") or {}
    every = select(job.run.config if job.run else {}, "trainer.snapshot_kimg")
    if job.run is not None and selection and every:
        count += selection.get("num_samples", 0) * int(
            job.run.config["trainer"]["max_kimg"] / every
        )
    return Work(_key(job.verb, config, _OF_SAMPLING), count)


def _key(verb: str, config: Mapping[str, Any], names: Sequence[str]) -> str:
    return json.dumps([verb, *(select(config, name) for name in names)], default=str)


def estimated(
    jobs: Sequence[TableJob], *, on_trials: Callable[[int, int], object] = lambda done, of: None
) -> dict[str, Estimate]:
    """Estimates of the unfinished jobs, by identity; equal work is timed once.

    ``on_trials`` is called before each trial with the number of finished trials and of all trials.
    """
    waiting = [job for job in jobs if not job.is_done()]
    works = {job.identity: work_of(job) for job in waiting}
    distinct = {w.key: job for job in waiting if (w := works[job.identity]).key is not None}
    trials: dict[str | None, Trial | str] = {}
    for number, (key, job) in enumerate(distinct.items()):
        on_trials(number, len(distinct))
        trials[key] = _tried(job)
    return {identity: _estimate(work, trials.get(work.key)) for identity, work in works.items()}


def _needs_accelerator(job: TableJob) -> str | None:
    """A sentence if the accelerator that a training names is missing."""
    import torch

    named = select(job.config, "trainer.accelerator")
    away = named in ("cuda", "gpu") and not torch.cuda.is_available()
    return f"this computer has no trainer.accelerator={named}" if away else None


def _tried(job: TableJob) -> "Trial | str":
    """The trial of a job's work, or the reason why there is none."""
    from flowexp.tables.probes import try_sampling, try_training

    try:
        if (missing := _needs_accelerator(job)) is not None:
            return missing
        if job.verb == "train":
            return try_training(job.config)
        return try_sampling(job.config, metrics=job.verb == "eval")
    except UsageError as error:
        return error.problem.rstrip(".")
    except Exception as error:  # a dry run must not fail because of an estimate
        return f"{type(error).__name__}: {error}".partition("\n")[0]


def _estimate(work: Work, trial: "Trial | str | None") -> Estimate:
    if trial is None:
        return Estimate(None, work.words)
    if isinstance(trial, str):
        return Estimate(None, trial)
    seconds = _START_SECONDS + work.images * trial.seconds
    return Estimate(seconds, trial.without, trial.where)


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h`` or ``2.1 days``."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            amount = seconds / size
            return (
                f"{amount:.0f} {unit}" if amount >= 10 or unit == "min" else f"{amount:.1f} {unit}"
            )
    return f"{seconds:.0f} s"
