"""From a table or a claim and a budget to rows with checked jobs."""

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from flowexp.config.check import Checked, check
from flowexp.config.overrides import in_full
from flowexp.config.problems import ConfigError, Problem
from flowexp.errors import UsageError
from flowexp.tables.budgets import Budget
from flowexp.tables.jobs import (
    PlannedRow,
    Scoring,
    TableJob,
    directories,
    grouped,
    identity_of,
    rewritten,
    significant,
    token,
)
from flowexp.tables.results import ClaimResult, TableResult, claim_result, table_result
from flowexp.tables.syntax import Arm, ClaimFile, Row, TableFile
from flowexp.tree import leaves, without

__all__ = ["Circumstances", "Plan", "matching", "plan", "rows_to_plan"]

# A claim names the cheapest budget that pays for it.
_PRICES = {"cpu": 0, "small": 1, "gpu_hour": 2, "full": 3}
_DEFAULT_SAMPLES = 50_000
_STANDINS = "flowexp-table-"
_ANY_SEED = 1_905_271_843
"""Stands for the seed of a training; no value of a config is this number by chance."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """The user's choices besides the name of a table.

    Attributes:
        budget: Name of the budget.
        node: Its plain node, for tables.
        root: Folder of all jobs.
        seeds: Training seeds in place of the budget's or claim's; None = those.
        extra: Verb -> overrides of all its jobs.
        config_dir: Folder with further groups.
    """

    budget: str
    node: Mapping[str, Any] = field(default_factory=dict)
    root: Path
    seeds: Sequence[int] | None = None
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)
    config_dir: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A table or claim with all its rows planned; none if the budget does not pay for it.

    Attributes:
        only: Text in the labels of the wanted rows, or a pattern with ``*``; None = all rows.
    """

    file: TableFile | ClaimFile
    rows: tuple[PlannedRow, ...]
    scoring: Scoring
    only: str | None = None

    @property
    def wanted(self) -> tuple[PlannedRow, ...]:
        """The rows whose jobs are to be run, at least one; the others are shown as they are."""
        labels = [row.spec.label for row in self.rows]
        wanted = matching(self.only, labels)
        if not wanted and self.only is not None:
            remedy = f"Rows: {'; '.join(labels)}."
            raise UsageError(f"no row is called {self.only!r}.", key="only", remedy=remedy)
        return tuple(row for row in self.rows if row.spec.label in wanted)

    def result(self, *, budget: str) -> TableResult | ClaimResult:
        """The result so far."""
        if isinstance(self.file, ClaimFile):
            return claim_result(self.file, self.rows, budget=budget)
        return table_result(self.file, self.rows, scoring=self.scoring, budget=budget)


def matching(only: str | None, names: Sequence[str]) -> list[str]:
    """The names that contain the text ``only`` or, if it has a ``*``, match it; None = all.

    Case is ignored, and no other character is special.
    """
    if only is None:
        return [*names]
    pieces = [re.escape(piece) for piece in only.split("*")]
    pattern = re.compile(".*".join(pieces), re.IGNORECASE | re.DOTALL)
    return [name for name in names if (pattern.fullmatch if "*" in only else pattern.search)(name)]


def rows_to_plan(file: TableFile | ClaimFile, given: Circumstances) -> Sequence[Row | Arm]:
    """The rows of a table; the arms of a claim, none if the budget does not pay for it."""
    if isinstance(file, TableFile):
        return file.rows
    pays = _PRICES.get(file.budget, 0) <= _PRICES.get(given.budget, math.inf)
    return file.arms if pays else ()


def plan(
    file: TableFile | ClaimFile,
    given: Circumstances,
    *,
    only: str | None = None,
    on_row: Callable[[], object] = lambda: None,
) -> Plan:
    """Plan a table or a claim, calling ``on_row`` after each row.

    Every command that is not sound is refused, with the name of its row. The experiments of a claim
    and of a table with seeds have the size that shows the effect; a budget only says whether it
    pays for a claim.
    """
    if file.seeds is None:
        seeds = given.node["seeds"] if given.seeds is None else given.seeds
        budget = Budget(**{**given.node, "name": given.budget, "seeds": seeds})
    else:
        budget = Budget(name=given.budget, seeds=given.seeds or file.seeds)
    if isinstance(file, ClaimFile):
        scoring = Scoring(metric=file.metric, num_samples=file.num_samples)
    else:
        scoring = _scoring(file, budget)
    rows = _Planner(file, scoring, budget, given, on_row).rows()
    return Plan(file=file, rows=rows, scoring=scoring, only=only)


def _scoring(table: TableFile, budget: Budget) -> Scoring:
    published = table.protocol.get("num_samples") or _DEFAULT_SAMPLES
    repetitions = table.protocol.get("repetitions") or 1
    metric = budget.metric.get(table.metric, table.metric)
    samples, repeats = budget.num_samples or published, budget.repeats or repetitions
    selected = table.protocol.get("selection") or "last"
    selection = budget.selection or selected
    return Scoring(
        metric=metric,
        num_samples=samples,
        repeats=repeats,
        selection=selection,
        scaled=(metric, samples, repeats, selection)
        != (table.metric, published, repetitions, selected),
    )


@dataclass(frozen=True)
class _Training:
    """A planned job of a file, whether a budget changed it, and its data as published."""

    job: TableJob
    scaled: bool
    dataset: str


_Kind = tuple[str, tuple[str, ...], str, tuple[tuple[str, tuple[int, ...]], ...]]
_Parents = Mapping[str, tuple[TableJob, ...]]


@dataclass(frozen=True)
class _Outcome:
    """A check of a kind of commands: of which parents, and whether it is that of all seeds."""

    checked: Checked
    tokens: Sequence[str]
    shared: bool


class _NotPlannedError(Exception):
    """A command is not sound; its problems have been noted."""


@dataclass
class _Planner:
    """Plans rows and checks every command line; nothing is run, and no data is read.

    A command that starts from a run which does not exist yet is checked against a stand-in: a
    folder with the config which that run will have. Commands that differ only in the seed of a
    training, their own or that of a run they start from, are checked once, unless another value
    follows from the seed.
    """

    file: TableFile | ClaimFile
    scoring: Scoring
    budget: Budget
    given: Circumstances
    on_row: Callable[[], object]

    def __post_init__(self) -> None:
        self.problems: list[Problem] = []
        self._jobs: dict[str, TableJob] = {}
        self._trainings: dict[tuple[str, int], _Training | None] = {}
        self._checked: dict[_Kind, _Outcome] = {}
        self._alone: dict[tuple[str, ...], Checked] = {}
        self._kinds: dict[TableJob, int] = {}
        self._numbers: dict[_Kind, int] = {}
        self._tokens: dict[str, str] = {}

    def rows(self) -> tuple[PlannedRow, ...]:
        """The rows with their jobs; one error says all that is wrong with any of the commands."""
        planned = []
        with tempfile.TemporaryDirectory(prefix=_STANDINS) as folder:
            self._standins = Path(folder)
            for row in rows_to_plan(self.file, self.given):
                with suppress(_NotPlannedError):
                    planned.append(self._row(row))
                self.on_row()
        if self.problems:
            raise ConfigError(self.problems)
        return tuple(planned)

    def _row(self, spec: Row | Arm) -> PlannedRow:
        seeds = self.budget.seeds
        trained = [self._training(spec.training, seed, label=spec.label) for seed in seeds]
        common, extra = (*self.scoring.overrides(), *self.budget.eval), self._extra("eval")
        scored, bases = [], []
        for seed, training in zip(seeds, trained, strict=True):
            run = {"run": (training.job,)}
            after: tuple[TableJob, ...] = ()
            if spec.calibrate is not None:
                own = (*in_full("calibrate", spec.calibrate), *self._extra("calibrate"))
                title = f"{spec.label}: calibrate, seed {seed}"
                after = (self._job("calibrate", own, run, title=title),)
            beside, _ = self._parents(spec.eval_parents, seed, label=spec.label)
            title = f"{spec.label}: eval, seed {seed}"
            own = (*common, *spec.eval, *extra)
            scored.append(self._job("eval", own, {**run, **beside}, title=title, after=after))
            self._require_snapshots(training.job, scored[-1])
            if spec.relative_to is not None:
                title = f"{spec.label}: eval of what it is relative to, seed {seed}"
                own = (*common, *spec.relative_to, *extra)
                bases.append(self._job("eval", own, run, title=title, after=after))
        return PlannedRow(
            spec=spec,
            seeds=tuple(seeds),
            evaluations=tuple(scored),
            baselines=tuple(bases),
            scaled=trained[0].scaled or self.scoring.scaled or bool(self.budget.eval),
            dataset=trained[0].dataset,
        )

    def _require_snapshots(self, training: TableJob, scored: TableJob) -> None:
        if not scored.config.get("selection") or training.config["trainer"].get("snapshot_kimg"):
            return
        problem = "the training keeps no snapshots to select from."
        remedy = "Set trainer.snapshot_kimg in its recipe, or eval: [selection=last] in the row."
        self.problems.append(Problem(scored.title, problem, remedy))
        raise _NotPlannedError

    def _training(self, name: str, seed: int, *, label: str) -> _Training:
        """The job of this name; problems are noted for the row that needed it first."""
        if (name, seed) not in self._trainings:
            # Stays None if it cannot be planned, so that its problems are noted once.
            self._trainings[name, seed] = None
            self._trainings[name, seed] = self._plan(name, seed, label=label)
        found = self._trainings[name, seed]
        if found is None:
            raise _NotPlannedError
        return found

    def _parents(
        self, names: Mapping[str, Sequence[str]], seed: int, *, label: str
    ) -> tuple[dict[str, tuple[TableJob, ...]], bool]:
        """The named jobs by override key, and whether a budget changed any of them."""
        found = {
            key: [self._training(name, seed, label=label) for name in several]
            for key, several in names.items()
        }
        jobs = {key: tuple(one.job for one in several) for key, several in found.items()}
        return jobs, any(one.scaled for several in found.values() for one in several)

    def _plan(self, name: str, seed: int, *, label: str) -> _Training:
        spec = self.file.jobs[name]
        parents, parents_scaled = self._parents(spec.parents, seed, label=label)
        before, before_scaled = self._parents({"after": spec.after}, seed, label=label)
        own = tuple(in_full(spec.verb, spec.overrides))
        if spec.experiment is not None:
            own = (f"experiment={spec.experiment}", *own)
        own_seed = seed if spec.verb == "train" else None
        published = self._check(spec.verb, own, parents, seed=own_seed)
        what = label if name == label else f"{label} ({name})"
        title = f"{what}: {spec.verb}, seed {seed}"
        if published.problems and not published.config:
            self._refuse(title, published)
        affordable: tuple[str, ...] = ()
        if spec.verb == "train":
            affordable = self.budget.of_training(published.choices, published.config)
        elif spec.verb == "pairs":
            affordable = self.budget.pairs(published.config)
        overrides = (*own, *affordable, *self._extra(spec.verb))
        job = self._job(
            spec.verb, overrides, parents, title=title, after=before["after"], seed=own_seed
        )
        changed = _differ(published.config, job.config, verb=spec.verb)
        scaled = parents_scaled or before_scaled or changed
        return _Training(job, scaled, published.choices.get("dataset", ""))

    def _extra(self, verb: str) -> tuple[str, ...]:
        return tuple(in_full(verb, self.given.extra.get(verb, ())))

    def _job(
        self,
        verb: str,
        overrides: tuple[str, ...],
        parents: Mapping[str, tuple[TableJob, ...]],
        *,
        title: str,
        after: tuple[TableJob, ...] = (),
        seed: int | None = None,
    ) -> TableJob:
        """A checked job.

        Jobs of one identity are run once, but may differ in how a trained model is sampled, which
        the jobs that start from them inherit.
        """
        checked = self._check(verb, overrides, parents, seed=seed)
        if checked.problems:
            self._refuse(title, checked)
        config = checked.config
        job = TableJob(
            title=title,
            verb=verb,
            overrides=(*_seeded(overrides, seed), *grouped(config, self.file.name, title)),
            parents=parents,
            after=after,
            config=config,
            choices=checked.choices,
            identity=identity_of(verb, config, parents=parents, after=after),
            root=self.given.root,
            config_dir=self.given.config_dir,
        )
        planned = self._jobs.setdefault(_fingerprint(job), job)
        kind = self._kind(verb, overrides, parents, seed)
        self._kinds.setdefault(planned, self._numbers.setdefault(kind, len(self._numbers)))
        return planned

    def _check(
        self, verb: str, overrides: Sequence[str], parents: _Parents, *, seed: int | None = None
    ) -> Checked:
        """The outcome of a command's check, its config with tokens for the stand-ins."""
        kind = self._kind(verb, overrides, parents, seed)
        if kind not in self._checked:
            any_seed = _ANY_SEED if seed is not None and _is_ordinary(seed) else seed
            found = self._check_alone(verb, _seeded(overrides, any_seed), parents)
            shared = any_seed == _ANY_SEED or seed is None
            self._checked[kind] = _Outcome(found, _tokens(parents), shared and self._tells(found))
        known = self._checked[kind]
        tokens = _tokens(parents)
        if not known.shared or len(tokens) != len(known.tokens):
            return self._check_alone(verb, _seeded(overrides, seed), parents)
        other = dict(zip(known.tokens, tokens, strict=True))
        config = rewritten(known.checked.config, lambda text: other.get(text, text))
        if seed is not None and "seed" in config:
            config["seed"] = seed
        return replace(known.checked, config=config)

    def _check_alone(self, verb: str, overrides: Sequence[str], parents: _Parents) -> Checked:
        folders = {k: [str(self._standin(job)) for job in jobs] for k, jobs in parents.items()}
        given = [*overrides, *(directories(key, several) for key, several in folders.items())]
        key = (verb, *given)
        if key not in self._alone:
            found = check(verb, given, config_dir=self.given.config_dir)
            # A run's config may name what it started from, which is then part of its evaluations'.
            config = rewritten(found.config, lambda text: self._tokens.get(text, text))
            self._alone[key] = replace(found, config=config)
        return self._alone[key]

    def _kind(
        self, verb: str, overrides: Sequence[str], parents: _Parents, seed: int | None
    ) -> _Kind:
        """What tells a command from others, but for the seeds of trainings."""
        of_seed = "" if seed is None else "seed" if _is_ordinary(seed) else f"seed={seed}"
        started = tuple((k, tuple(self._kinds[job] for job in jobs)) for k, jobs in parents.items())
        return (verb, tuple(overrides), of_seed, started)

    def _tells(self, checked: Checked) -> bool:
        """Whether a config has the seed and the stand-ins only where they can be exchanged."""
        inner = without(checked.config, {"seed", "dirs"})
        hidden = (str(_ANY_SEED), str(self._standins))
        return not any(text in str(value) for _, value in leaves(inner) for text in hidden)

    def _standin(self, job: TableJob) -> Path:
        """A folder with the config that the job's directory will hold."""
        folder = self._standins / _fingerprint(job)
        self._tokens[str(folder)] = token(job)
        if not folder.is_dir():
            folder.mkdir()
            parents = {token(one): str(self._standin(one)) for one in job.needs}
            config = rewritten(job.config, lambda text: parents.get(text, text))
            (folder / "config.yaml").write_text(
                yaml.safe_dump(config, sort_keys=False), encoding="utf-8"
            )
            (folder / "manifest.json").write_text(
                json.dumps({"choices": dict(job.choices)}), encoding="utf-8"
            )
        return folder

    def _refuse(self, title: str, checked: Checked) -> NoReturn:
        for problem in checked.problems:
            self.problems.append(Problem(f"{title}: {problem.key}", problem.text, problem.remedy))
        raise _NotPlannedError


def _seeded(overrides: Sequence[str], seed: int | None) -> tuple[str, ...]:
    return (*overrides, *(() if seed is None else (f"seed={seed}",)))


def _is_ordinary(seed: int) -> bool:
    """Whether it is allowed as certainly as any other seed."""
    return 0 <= seed < 2**31


def _tokens(parents: _Parents) -> list[str]:
    """The tokens of all jobs that a command starts from, in the order of its parents."""
    return [token(one) for jobs in parents.values() for job in jobs for one in job.ancestry()]


def _fingerprint(job: TableJob) -> str:
    """Distinguishes jobs of one identity by the rest of their configs."""
    # Directories may hold the time.
    config = {key: value for key, value in job.config.items() if key != "dirs"}
    rest = json.dumps([config, job.choices], sort_keys=True, default=str)
    return hashlib.sha256(f"{job.identity} {rest}".encode()).hexdigest()


def _differ(published: Mapping[str, Any], planned: Mapping[str, Any], *, verb: str) -> bool:
    """Whether two configs give different results for a reason other than their parents."""

    def comparable(text: str) -> str:
        return "run" if text.startswith("job:") or _STANDINS in text else text

    first, second = (
        rewritten(significant(config, verb=verb), comparable) for config in (published, planned)
    )
    return bool(first != second)
