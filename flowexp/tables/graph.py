"""From a table or a claim and a budget to checked jobs."""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flowexp.config.check import Checked, check
from flowexp.config.overrides import in_full
from flowexp.config.problems import ConfigError, Problem
from flowexp.tables.budgets import Budget
from flowexp.tables.jobs import Job, identity_of, override, rewritten, significant, token
from flowexp.tables.planned_rows import Evaluations, PlannedRow
from flowexp.tables.specs import JobSpec, RowSpec

__all__ = ["Planner"]


@dataclass(frozen=True)
class _Training:
    """A planned job of a file, whether a budget changed it, and its data as published."""

    job: Job
    scaled: bool
    dataset: str


@dataclass
class Planner:
    """Plans rows and checks every command line; nothing is run, and no data is read.

    A command that starts from a run which is not there yet is checked against a stand-in: a folder
    with the config which that run will have.

    Args:
        name: Name of the table or claim, for loggers.
        root: Folder of all jobs.
        budget: What is made of the recipes.
        extra: Verb -> overrides that the user adds.
        config_dir: Folder with further groups, or None.
    """

    name: str
    root: Path
    budget: Budget
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)
    config_dir: str | None = None

    def __post_init__(self) -> None:
        self.problems: list[Problem] = []
        self._jobs: dict[str, Job] = {}
        self._trainings: dict[tuple[str, int], _Training | None] = {}
        self._checked: dict[tuple[str, ...], Checked] = {}

    def rows(
        self,
        specs: Sequence[RowSpec],
        jobs: Mapping[str, JobSpec],
        *,
        evaluations: Evaluations,
        seeds: Sequence[int],
    ) -> tuple[PlannedRow, ...]:
        """The rows with their jobs, every command line checked.

        Raises:
            ConfigError: All that is wrong with any of the commands, each with the row's label.
        """
        with tempfile.TemporaryDirectory(prefix="flowexp-table-") as folder:
            self._standins = Path(folder)
            planned = [self._row(spec, jobs, evaluations, seeds) for spec in specs]
        if self.problems:
            raise ConfigError(self.problems)
        return tuple(row for row in planned if row is not None)

    def _row(
        self,
        spec: RowSpec,
        jobs: Mapping[str, JobSpec],
        evaluations: Evaluations,
        seeds: Sequence[int],
    ) -> PlannedRow | None:
        trained = [self._training(spec.job, jobs, seed, label=spec.label) for seed in seeds]
        scored: list[Job | None] = []
        bases: list[Job | None] = []
        for seed, training in zip(seeds, trained, strict=True):
            if training is None:
                return None
            after = self._calibration(spec, training.job, seed)
            if after is None:
                return None
            beside = self._beside(spec, jobs, seed)
            if beside is None:
                return None
            title = f"{spec.label}: eval, seed {seed}"
            scored.append(
                self._evaluation(spec.eval, training.job, after, evaluations, title, beside)
            )
            if spec.relative_to is not None:
                title = f"{spec.label}: eval of what it is relative to, seed {seed}"
                bases.append(
                    self._evaluation(spec.relative_to, training.job, after, evaluations, title)
                )
        first = trained[0]
        if first is None or any(job is None for job in (*scored, *bases)):
            return None
        return PlannedRow(
            spec=spec,
            seeds=tuple(seeds),
            evaluations=tuple(job for job in scored if job is not None),
            baselines=tuple(job for job in bases if job is not None),
            scaled=first.scaled or evaluations.scaled or bool(self.budget.eval),
            dataset=first.dataset,
        )

    def _training(
        self, name: str, jobs: Mapping[str, JobSpec], seed: int, *, label: str
    ) -> _Training | None:
        """The job of this name; problems are those of the row that needed it first."""
        if (name, seed) not in self._trainings:
            self._trainings[name, seed] = self._plan(name, jobs, seed, label=label)
        return self._trainings[name, seed]

    def _plan(
        self, name: str, jobs: Mapping[str, JobSpec], seed: int, *, label: str
    ) -> _Training | None:
        spec = jobs[name]
        found = {
            key: [self._training(parent, jobs, seed, label=label) for parent in several]
            for key, several in spec.parents.items()
        }
        parents: dict[str, tuple[Job, ...]] = {}
        scaled = False
        for key, several in found.items():
            known = [parent for parent in several if parent is not None]
            if len(known) < len(several):
                return None
            parents[key] = tuple(parent.job for parent in known)
            scaled = scaled or any(parent.scaled for parent in known)
        before = [self._training(name, jobs, seed, label=label) for name in spec.after]
        after = tuple(one.job for one in before if one is not None)
        if len(after) < len(before):
            return None
        scaled = scaled or any(one.scaled for one in before if one is not None)
        own = tuple(in_full(spec.verb, spec.overrides))
        if spec.experiment is not None:
            own = (f"experiment={spec.experiment}", *own)
        of_seed = (f"seed={seed}",) if spec.verb == "train" else ()
        published = self._check(spec.verb, (*own, *of_seed), parents)
        what = label if name == label else f"{label} ({name})"
        title = f"{what}: {spec.verb}, seed {seed}"
        if published.problems and not published.config:
            self._report(title, published.problems)
            return None
        affordable = self._affordable(spec.verb, published)
        overrides = (*own, *affordable, *self._extra(spec.verb), *of_seed)
        job = self._job(spec.verb, overrides, parents, title=title, after=after)
        if job is None:
            return None
        scaled = scaled or _differ(published.config, job.config, verb=spec.verb)
        return _Training(job, scaled, published.choices.get("dataset", ""))

    def _affordable(self, verb: str, published: Checked) -> tuple[str, ...]:
        if verb == "train":
            return self.budget.of_training(published.choices, published.config)
        return self.budget.pairs(published.config) if verb == "pairs" else ()

    def _extra(self, verb: str) -> tuple[str, ...]:
        return tuple(in_full(verb, self.extra.get(verb, ())))

    def _calibration(self, spec: RowSpec, training: Job, seed: int) -> tuple[Job, ...] | None:
        if spec.calibrate is None:
            return ()
        overrides = (*in_full("calibrate", spec.calibrate), *self._extra("calibrate"))
        title = f"{spec.label}: calibrate, seed {seed}"
        job = self._job("calibrate", overrides, {"run": (training,)}, title=title)
        return None if job is None else (job,)

    def _beside(
        self, spec: RowSpec, jobs: Mapping[str, JobSpec], seed: int
    ) -> dict[str, tuple[Job, ...]] | None:
        """The further trainings an evaluation names, or None if one of them cannot be planned."""
        found: dict[str, tuple[Job, ...]] = {}
        for key, several in spec.eval_parents.items():
            planned = [self._training(name, jobs, seed, label=spec.label) for name in several]
            known = tuple(one.job for one in planned if one is not None)
            if len(known) < len(several):
                return None
            found[key] = known
        return found

    def _evaluation(
        self,
        own: Sequence[str],
        training: Job,
        after: tuple[Job, ...],
        evaluations: Evaluations,
        title: str,
        beside: Mapping[str, tuple[Job, ...]] | None = None,
    ) -> Job | None:
        overrides = (
            *evaluations.overrides(), *self.budget.eval, *own, *self._extra("eval")
        )  # fmt: skip
        parents = {"run": (training,), **(beside or {})}
        return self._job("eval", overrides, parents, title=title, after=after)

    def _job(
        self,
        verb: str,
        overrides: tuple[str, ...],
        parents: Mapping[str, tuple[Job, ...]],
        *,
        title: str,
        after: tuple[Job, ...] = (),
    ) -> Job | None:
        """A checked job.

        Jobs of one identity are run once, but may differ in what is asked of a model once it is
        trained, which those that start from it take over.
        """
        checked = self._check(verb, overrides, parents)
        if checked.problems:
            self._report(title, checked.problems)
            return None
        # A run's config may name what it started from, which its evaluations then see as well.
        places = {
            str(self._standin(one)): token(one)
            for jobs in parents.values()
            for parent in jobs
            for one in parent.ancestry()
        }
        config = rewritten(checked.config, lambda text: places.get(text, text))
        identity = identity_of(verb, config, parents=parents, after=after)
        job = Job(
            title=title,
            verb=verb,
            overrides=(*overrides, *_grouped(config, self.name, title)),
            parents=parents,
            after=after,
            config=config,
            choices=checked.choices,
            identity=identity,
            root=self.root,
            config_dir=self.config_dir,
        )
        return self._jobs.setdefault(_fingerprint(job), job)

    def _check(
        self, verb: str, overrides: Sequence[str], parents: Mapping[str, tuple[Job, ...]]
    ) -> Checked:
        given = list(overrides)
        for name, jobs in parents.items():
            given.append(override(name, *(str(self._standin(job)) for job in jobs)))
        key = (verb, *given)
        if key not in self._checked:
            self._checked[key] = check(verb, given, config_dir=self.config_dir)
        return self._checked[key]

    def _standin(self, job: Job) -> Path:
        """A folder with the config that the job's directory will hold."""
        folder = self._standins / _fingerprint(job)
        if not folder.is_dir():
            folder.mkdir()
            parents = {token(one): str(self._standin(one)) for one in job.needs}
            config = rewritten(job.config, lambda text: parents.get(text, text))
            (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
            (folder / "manifest.json").write_text(json.dumps({"choices": dict(job.choices)}))
        return folder

    def _report(self, what: str, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.problems.append(Problem(f"{what}: {problem.key}", problem.text, problem.remedy))


def _fingerprint(job: Job) -> str:
    """What tells jobs of one identity apart: the rest of their configs."""
    # Directories may hold the time.
    config = {key: value for key, value in job.config.items() if key != "dirs"}
    rest = json.dumps([config, job.choices], sort_keys=True, default=str)
    return hashlib.sha256(f"{job.identity} {rest}".encode()).hexdigest()


def _grouped(config: Mapping[str, Any], name: str, title: str) -> tuple[str, ...]:
    """In loggers that know groups, the table is the group and the row the job type."""
    row, _, rest = title.rpartition(": ")
    overrides: list[str] = []
    for logger, node in (config.get("logger") or {}).items():
        if isinstance(node, Mapping) and {"group", "job_type", "name"} <= node.keys():
            values = {"group": name, "job_type": row, "name": f"{row}, {rest}"}
            overrides += [override(f"logger.{logger}.{k}", v) for k, v in values.items()]
    return tuple(overrides)


def _differ(published: Mapping[str, Any], planned: Mapping[str, Any], *, verb: str) -> bool:
    """Whether two configs give different results for a reason other than their parents."""
    left, right = significant(published, verb=verb), significant(planned, verb=verb)
    return bool(_comparable(left) != _comparable(right))


def _comparable(config: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a config value
    return rewritten(config, lambda text: "run" if _names_run(text) else text)


def _names_run(text: str) -> bool:
    return text.startswith("job:") or "flowexp-table-" in text
