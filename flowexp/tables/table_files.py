"""The files of tables and claims: what they may say, and what is refused by name."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from flowexp.config.locations import conf_dir
from flowexp.config.nearest import did_you_mean
from flowexp.errors import UsageError
from flowexp.tables.specs import TEST, ClaimFile, JobSpec, RowSpec, TableFile

__all__ = ["names", "read_claim", "read_table"]

VERBS = ("train", "pairs", "calibrate")
_JOB_KEYS = ("verb", "experiment", "overrides", "parents", "after")
_ROW_KEYS = ("label", "job", "experiment", "overrides", "parents", "after", "eval",
             "eval_parents", "calibrate")  # fmt: skip
_PUBLISHED_KEYS = ("published", "nfe", "source", "verified")
_TABLE_KEYS = ("title", "source", "metric", "protocol", "jobs", "rows")
_PROTOCOL_KEYS = ("num_samples", "reference", "weights", "repetitions", "reported", "notice")
_CLAIM_KEYS = ("title", "source", "published", "jobs", "arms", "metric", "direction", "seeds",
               "num_samples", "test", "budget")  # fmt: skip
_DIRECTIONS = ("lower", "higher")


def names(kind: Literal["table", "claim"], *, config_dir: str | None = None) -> list[str]:
    """The names of all tables or claims, sorted.

    Args:
        kind: Which.
        config_dir: Folder with further groups, besides flowexp's own.
    """
    found: set[str] = set()
    for folder in _folders(kind, config_dir):
        found |= {str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.yaml")}
    return sorted(found)


def read_table(name: str, *, config_dir: str | None = None) -> TableFile:
    """The table of this name.

    Raises:
        UsageError: There is none, or its file says something it may not.
    """
    content, reader = _open("table", name, config_dir)
    reader.known(content, _TABLE_KEYS, "the table")
    protocol = reader.mapping(content, "protocol", "the table")
    reader.known(protocol, _PROTOCOL_KEYS, "protocol")
    jobs, rows = reader.jobs_and_rows(content, "rows", (*_ROW_KEYS, *_PUBLISHED_KEYS))
    return TableFile(
        name=name,
        title=reader.text(content, "title"),
        source=reader.text(content, "source"),
        metric=reader.text(content, "metric"),
        protocol=protocol,
        jobs=jobs,
        rows=rows,
    )


def read_claim(name: str, *, config_dir: str | None = None) -> ClaimFile:
    """The claim of this name.

    Raises:
        UsageError: There is none, or its file says something it may not.
    """
    content, reader = _open("claim", name, config_dir)
    reader.known(content, _CLAIM_KEYS, "the claim")
    jobs, rows = reader.jobs_and_rows(content, "arms", (*_ROW_KEYS, "relative_to"))
    if len(rows) < 2:
        reader.refuse("a claim compares two arms or more", "arms: [...]")
    direction = reader.one_of(content, "direction", _DIRECTIONS)
    seeds = content.get("seeds", [0, 1, 2])
    if not isinstance(seeds, list) or len(seeds) < 3 or not all(type(s) is int for s in seeds):
        reader.refuse(f"seeds is {seeds!r}, too few for a test", "Give three integers or more.")
    return ClaimFile(
        name=name,
        title=reader.text(content, "title"),
        source=reader.text(content, "source"),
        published=reader.text(content, "published"),
        metric=reader.text(content, "metric"),
        direction="lower" if direction == "lower" else "higher",
        seeds=tuple(seeds),
        num_samples=reader.count(content, "num_samples"),
        test=reader.one_of({"test": TEST, **content}, "test", (TEST,)),
        budget=str(content.get("budget", "cpu")),
        jobs=jobs,
        rows=rows,
    )


def _folders(kind: str, config_dir: str | None) -> list[Path]:
    own = [] if config_dir is None else [Path(config_dir) / kind]
    return [folder for folder in (*own, conf_dir() / kind) if folder.is_dir()]


def _open(
    kind: Literal["table", "claim"], name: str, config_dir: str | None
) -> tuple[dict[str, Any], "_Reader"]:
    for folder in _folders(kind, config_dir):
        file = folder / f"{name}.yaml"
        if not file.is_file():
            continue
        reader = _Reader(f"{kind} {name}")
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            text = " ".join(str(error).split())
            raise UsageError(f"{file} is no YAML: {text}.", key=reader.where) from error
        if not isinstance(content, dict):
            reader.refuse(f"{file} holds no mapping", f"See {conf_dir() / kind} for others.")
        return content, reader
    raise UsageError(
        f"there is no {kind} {name!r}.",
        key=kind,
        remedy=did_you_mean(name, names(kind, config_dir=config_dir)),
    )


class _Reader:
    """Takes a file apart; everything it refuses is named with the file's own name."""

    def __init__(self, where: str) -> None:
        self.where = where

    def refuse(self, problem: str, remedy: str) -> None:
        raise UsageError(f"{problem}.", key=self.where, remedy=remedy)

    def known(self, node: Mapping[str, Any], allowed: Sequence[str], what: str) -> None:
        for key in node:
            if key not in allowed:
                self.refuse(f"{what} has no key {str(key)!r}", did_you_mean(str(key), allowed))

    def text(self, node: Mapping[str, Any], key: str) -> str:
        value = node.get(key)
        if not isinstance(value, str) or not value:
            self.refuse(f"{key} is {value!r}", f"Give {key} as text.")
        return str(value)

    def one_of(self, node: Mapping[str, Any], key: str, allowed: Sequence[str]) -> str:
        value = node.get(key)
        if value not in allowed:
            self.refuse(f"{key} is {value!r}", f"Possible: {', '.join(allowed)}.")
        return str(value)

    def count(self, node: Mapping[str, Any], key: str) -> int:
        value = node.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 2:
            self.refuse(f"{key} is {value!r}", "Give an integer of at least 2.")
        return int(value or 0)

    def number(self, node: Mapping[str, Any], key: str, what: str) -> float | None:
        value = node.get(key)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.refuse(f"{key} of {what} is {value!r}", "Give a number, or null.")
        return float(value)

    def texts(self, node: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
        value = node.get(key)
        entries = [] if value is None else value
        if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
            self.refuse(f"{key} of {what} is {value!r}", "Give a list: [key=value, ...].")
        return tuple(entries)

    def mapping(self, node: Mapping[str, Any], key: str, what: str) -> dict[str, Any]:
        value = node.get(key)
        if value is not None and not isinstance(value, dict):
            self.refuse(f"{key} of {what} is {value!r}", f"Give a mapping: {key}: {{...}}.")
        return dict(value or {})

    def parents(self, node: Mapping[str, Any], key: str, what: str) -> dict[str, tuple[str, ...]]:
        return {
            str(name): tuple(map(str, several if isinstance(several, list) else [several]))
            for name, several in self.mapping(node, key, what).items()
        }

    def job(self, node: Mapping[str, Any], what: str) -> JobSpec:
        experiment = node.get("experiment")
        return JobSpec(
            verb=self.one_of({"verb": "train", **node}, "verb", VERBS),
            experiment=None if experiment is None else str(experiment),
            overrides=self.texts(node, "overrides", what),
            parents=self.parents(node, "parents", what),
            after=self.texts(node, "after", what),
        )

    def jobs_and_rows(
        self, content: Mapping[str, Any], key: str, allowed: Sequence[str]
    ) -> tuple[dict[str, JobSpec], tuple[RowSpec, ...]]:
        jobs: dict[str, JobSpec] = {}
        for name, node in self.mapping(content, "jobs", "the file").items():
            entry = self.mapping({name: node}, name, "jobs")
            self.known(entry, _JOB_KEYS, f"job {name!r}")
            jobs[str(name)] = self.job(entry, f"job {name!r}")
        listed = content.get(key)
        if not isinstance(listed, list) or not listed:
            self.refuse(f"{key} is {listed!r}", f"Give a list of {key}, each with a label.")
        rows = [self._row(node, number, jobs, allowed) for number, node in enumerate(listed or [])]
        self._refuse_twice(row.label for row in rows)
        self._refuse_unknown_parents(jobs)
        for row in rows:
            for name in (name for several in row.eval_parents.values() for name in several):
                if name not in jobs:
                    text = f"row {row.label!r} asks {name!r}, which is no job of the file"
                    self.refuse(text, did_you_mean(name, jobs))
        return jobs, tuple(rows)

    def _row(
        self, node: object, number: int, jobs: dict[str, JobSpec], allowed: Sequence[str]
    ) -> RowSpec:
        if not isinstance(node, dict) or not isinstance(node.get("label"), str):
            self.refuse(f"row {number} has no label", "Give every row a label: label: ....")
            raise AssertionError
        label = node["label"]
        what = f"row {label!r}"
        self.known(node, allowed, what)
        name = label
        if "job" in node:
            name = str(node["job"])
            inline = [key for key in ("experiment", "overrides", "parents", "after") if key in node]
            if inline:
                self.refuse(f"{what} names a job and has {inline[0]}", "Drop one of them.")
            if name not in jobs:
                self.refuse(f"{what} names no job of the file: {name!r}", did_you_mean(name, jobs))
        elif "experiment" not in node:
            self.refuse(f"{what} has nothing to train", "Give it a job or an experiment.")
        elif label in jobs:
            self.refuse(f"{what} is also the name of a job", "Give the row another label.")
        else:
            jobs[label] = self.job(node, what)
        given = {k: self.texts(node, k, what) for k in ("calibrate", "relative_to") if k in node}
        source = node.get("source")
        return RowSpec(
            label=label,
            job=name,
            eval=self.texts(node, "eval", what),
            eval_parents=self.parents(node, "eval_parents", what),
            published=self.number(node, "published", what),
            nfe=self.number(node, "nfe", what),
            source=None if source is None else str(source),
            verified=bool(node.get("verified", False)),
            **given,
        )

    def _refuse_twice(self, labels: Iterable[str]) -> None:
        seen: set[str] = set()
        for label in labels:
            if label in seen:
                self.refuse(f"two rows have the label {label!r}", "Give each its own.")
            seen.add(label)

    def _refuse_unknown_parents(self, jobs: Mapping[str, JobSpec]) -> None:
        for name, job in jobs.items():
            for parent in job.needs:
                if parent not in jobs:
                    text = f"job {name!r} has the parent {parent!r}, which is no job of the file"
                    self.refuse(text, did_you_mean(parent, jobs))
            self._refuse_circles(name, jobs, ())

    def _refuse_circles(
        self, name: str, jobs: Mapping[str, JobSpec], above: tuple[str, ...]
    ) -> None:
        if name in above:
            circle = " <- ".join((*above[above.index(name) :], name))
            self.refuse(f"the jobs wait for each other: {circle}", "Break the circle.")
        for parent in jobs[name].needs:
            if parent in jobs:
                self._refuse_circles(parent, jobs, (*above, name))
