"""A table's jobs, each one command of one verb, and the rows that their results make.

A job's result is found again by its identity: the hash of everything that determines the result,
which is the verb, the resolved config without what changes where or how fast it runs, and the
identities of the jobs it starts from. It does not depend on the order of overrides, on directories,
loggers or devices.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowexp.config.later_options import without_later_options
from flowexp.config.override_text import override
from flowexp.config.renamed import original
from flowexp.runs.run_directory import FREE_KEYS
from flowexp.tables.syntax import Arm, Row
from flowexp.tree import digest, mapped, without

__all__ = ["PlannedRow", "Scoring", "TableJob", "all_jobs", "directories", "grouped",
           "identity_of",
           "rewritten", "significant", "token"]  # fmt: skip

_FORMAT = 1
"""Version of the jobs' results; raised when old results no longer mean the same."""

_EVERYWHERE = (
    "dirs", "logger", "callbacks", "launcher", "device", "threads", "hydra", "batch_size",
    "debug", "local", "recipe", "experiment", "shard_size", "dataset.root", "dataset.in_memory",
    "dataset.download",
)  # fmt: skip
# Free to change when a training is resumed, but evaluations may need the snapshots.
_MATTERS_LATER = {"trainer.snapshot_kimg"}
_DIRECTORY_LETTERS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class TableJob:
    """One command of one verb.

    Attributes:
        title: Its name in messages.
        verb: ``train``, ``pairs``, ``calibrate`` or ``eval``.
        overrides: Without directories.
        parents: Override key -> jobs whose directories are its value.
        after: Jobs that must be done before, though the command does not name them.
        config: Its plain config with every parent's directory replaced by its :func:`token`.
        choices: Chosen option of every group.
        identity: See the module.
        root: Folder of all jobs.
    """

    title: str
    verb: str
    overrides: tuple[str, ...]
    parents: Mapping[str, tuple["TableJob", ...]]
    after: tuple["TableJob", ...]
    config: Mapping[str, Any] = field(repr=False)
    choices: Mapping[str, str] = field(repr=False)
    identity: str
    root: Path
    config_dir: str | None = None

    @property
    def directory(self) -> Path:
        """Its output directory."""
        return self.root / self.verb / self.identity[:_DIRECTORY_LETTERS]

    @property
    def log_file(self) -> Path:
        """The output of all attempts."""
        return self.directory / "job.log"

    @property
    def done_file(self) -> Path:
        """The marker of a finished job, written last."""
        return self.directory / "job.json"

    @property
    def status_file(self) -> Path:
        """The state of an attempt that is not finished."""
        return self.directory / "status.json"

    @property
    def recipe(self) -> Path | None:
        """Folder with the config a command starts from, of verbs that start from a run."""
        return self.directory / "recipe" if "run" in self.parents else None

    @property
    def needs(self) -> tuple["TableJob", ...]:
        """All jobs that must be done before."""
        return (*(job for several in self.parents.values() for job in several), *self.after)

    @property
    def run(self) -> "TableJob | None":
        """The training it starts from."""
        return next(iter(self.parents.get("run", ())), None)

    def ancestry(self) -> "list[TableJob]":
        """Itself and everything it needs, each once, needed ones first."""
        needed = {one.identity: one for job in self.needs for one in job.ancestry()}
        return [*needed.values(), self]

    def is_done(self) -> bool:
        """Whether its result is there."""
        try:
            return bool(
                json.loads(self.done_file.read_text(encoding="utf-8"))["identity"] == self.identity
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def arguments(self) -> list[str]:
        """The command line after ``flowexp``."""
        folders = [] if self.config_dir is None else ["--config-dir", self.config_dir]
        given = [*self.overrides]
        for key, jobs in self.parents.items():
            given.append(directories(key, [str(job.directory) for job in jobs]))
        if self.recipe is not None:
            given.append(override("recipe", str(self.recipe)))
        # A calibration belongs beside the weights it was measured on, where samplers look for it.
        if self.verb != "calibrate":
            given.append(override("dirs.run", str(self.directory)))
        return [self.verb, *folders, *given]


def token(job: TableJob) -> str:
    """The placeholder of a job's directory in configs that must not depend on it."""
    return f"job:{job.identity}"


def directories(key: str, folders: Sequence[str]) -> str:
    """An override whose value is one directory or a list of several."""
    return override(key, folders[0] if len(folders) == 1 else list(folders))


def rewritten(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - any config value
    """A config value with ``change`` applied to every text in it."""
    return mapped(value, lambda leaf: change(leaf) if isinstance(leaf, str) else leaf)


def identity_of(
    verb: str,
    config: Mapping[str, Any],
    *,
    parents: Mapping[str, tuple[TableJob, ...]] | None = None,
    after: tuple[TableJob, ...] = (),
) -> str:
    """sha256 (hex) of what determines a job's result; tokens stand for parents' directories."""
    content = {
        "format": _FORMAT,
        "verb": verb,
        "config": significant(config, verb=verb),
        "parents": {k: [job.identity for job in jobs] for k, jobs in (parents or {}).items()},
        "after": sorted(job.identity for job in after),
    }
    return digest(content)


def significant(config: Mapping[str, Any], *, verb: str) -> dict[str, Any]:
    """The part of a config that determines the result, numbers in one spelling.

    A training is free to change what may change when it is resumed: weights depend neither on what
    is sampled from them later nor on the devices (but for floating-point reordering).
    """
    free = {*_EVERYWHERE, *(FREE_KEYS if verb == "train" else ())} - _MATTERS_LATER
    kept = without_later_options(without(config, free))
    if "control" in (kept.get("sampler") or {}) and "batch_size" in config:
        kept["batch_size"] = config["batch_size"]  # samples that share their steps depend on it
    if not kept.get("selection"):
        kept.pop("selection", None)  # a later key of evaluations
    return dict(mapped(original(kept), _in_one_spelling))


def _in_one_spelling(value: Any) -> Any:  # noqa: ANN401 - any scalar
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How rows are scored, on ``repeats`` ranges of seeds; ``scaled`` if not as published.

    Which weights of a training are scored is an option of the group ``selection``.
    """

    metric: str
    num_samples: int
    repeats: int = 1
    selection: str = "last"
    scaled: bool = False

    def overrides(self) -> tuple[str, ...]:
        """For ``flowexp eval``."""
        sampled = (f"num_samples={self.num_samples}", f"repeats={self.repeats}")
        selected = () if self.selection == "last" else (f"selection={self.selection}",)
        return (f"metric={self.metric}", *sampled, *selected)


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


def grouped(config: Mapping[str, Any], name: str, title: str) -> tuple[str, ...]:
    """In loggers with groups, the table is the group and the row the job type."""
    row, _, rest = title.rpartition(": ")
    overrides: list[str] = []
    for logger, node in (config.get("logger") or {}).items():
        if isinstance(node, Mapping) and {"group", "job_type", "name"} <= node.keys():
            values = {"group": name, "job_type": row, "name": f"{row}, {rest}"}
            overrides += [override(f"logger.{logger}.{k}", v) for k, v in values.items()]
    return tuple(overrides)
