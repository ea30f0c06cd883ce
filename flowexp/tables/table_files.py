"""Reading the files of tables and claims: grids and variations written out, jobs checked."""

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from flowexp.config import conf_dir
from flowexp.config.problems import did_you_mean
from flowexp.errors import UsageError
from flowexp.tables.syntax import (
    Arm,
    Claim,
    ClaimFile,
    JobSpec,
    Protocol,
    Row,
    Table,
    TableFile,
    checked,
    refuse,
)
from flowexp.tables.variations import cells, variations

__all__ = ["names", "read_claim", "read_table"]

_Kind = Literal["table", "claim"]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TRAINING = ("experiment", "overrides", "parents", "after")
_Scored = TypeVar("_Scored", Row, Arm)


def names(kind: _Kind, *, config_dir: str | None = None) -> list[str]:
    """The names of all tables or claims, sorted."""
    folders = _folders(kind, config_dir)
    found = [_contents(kind, folder, file) for folder in folders for file in folder.rglob("*.yaml")]
    return sorted(set().union(*found))


def read_table(name: str, *, config_dir: str | None = None) -> TableFile:
    """The table of this name.

    Its rows are a list. An entry with the key ``columns`` is a grid, rows times columns, and stands
    for many rows, see :func:`flowexp.tables.variations.cells`. Keys of all rows may be given
    once under ``defaults``, such as ``defaults: {source: Table 1, verified: true}``; a row's own
    key replaces that of the defaults.

    Raises:
        UsageError: There is none, or its file says something it may not.
    """
    where = f"table {name}"
    table = checked(Table, _content("table", name, config_dir), file=where, what="the table")
    checked(Protocol, table.protocol, file=where, what="protocol")
    jobs, rows = _read(table, table.rows, Row, where, config_dir)
    return TableFile(**{**dict(table), "name": name, "jobs": jobs, "rows": rows})


def read_claim(name: str, *, config_dir: str | None = None) -> ClaimFile:
    """The claim of this name; ``defaults`` are those of a table.

    A file with the key ``vary`` holds several claims, see
    :func:`flowexp.tables.variations.variations`.

    Raises:
        UsageError: There is none, or its file says something it may not.
    """
    where = f"claim {name}"
    claim = checked(Claim, _content("claim", name, config_dir), file=where, what="the claim")
    jobs, arms = _read(claim, claim.arms, Arm, where, config_dir)
    return ClaimFile(**{**dict(claim), "name": name, "jobs": jobs, "arms": arms})


def _folders(kind: str, config_dir: str | None) -> list[Path]:
    own = [] if config_dir is None else [Path(config_dir) / kind]
    return [folder for folder in (*own, conf_dir() / kind) if folder.is_dir()]


def _content(kind: _Kind, name: str, config_dir: str | None) -> dict[str, Any]:
    """The content of this table or claim, in the file of its name or in one that varies."""
    for folder in _folders(kind, config_dir):
        file = folder / f"{name}.yaml"
        for candidate in [file] if file.is_file() else sorted(file.parent.glob("*.yaml")):
            found = _contents(kind, folder, candidate)
            if name in found:
                return found[name]
    raise UsageError(
        f"there is no {kind} {name!r}.",
        key=kind,
        remedy=did_you_mean(name, names(kind, config_dir=config_dir)),
    )


def _contents(kind: _Kind, folder: Path, file: Path) -> dict[str, dict[str, Any]]:
    """Everything that a file holds, by name."""
    name = file.relative_to(folder).with_suffix("")
    where = f"{kind} {name}"
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise UsageError(f"cannot parse {file} as YAML: {text}.", key=where) from error
    if not isinstance(content, dict):
        refuse(where, f"{file} is not a mapping", f"See {conf_dir() / kind} for examples.")
    if "vary" not in content:
        return {str(name): content}
    found = variations(content, file=where)
    return {str(name.with_name(one)): varied for one, varied in found.items()}


def _written_out(
    listed: Sequence[Any], defaults: Mapping[str, Any], where: str
) -> Iterator[tuple[dict[str, Any], str]]:
    """Every row with its defaults, and how messages name it; of a grid, every cell."""
    for number, entry in enumerate(listed):
        is_grid = isinstance(entry, dict) and "columns" in entry
        for node in cells(entry, file=where) if is_grid else [entry]:
            row = {**defaults, **node} if isinstance(node, dict) else {}
            if not isinstance(row.get("label"), str):
                refuse(where, f"row {number} has no label", "Give every row a label: label: ....")
            yield row, f"row {row['label']!r}"


def _read(
    content: Table | Claim,
    nodes: Sequence[Any],
    model: type[_Scored],
    where: str,
    config_dir: str | None,
) -> tuple[dict[str, JobSpec], tuple[_Scored, ...]]:
    """The jobs and the rows."""
    other = content.jobs_of
    jobs = {} if other is None else read_table(other, config_dir=config_dir).jobs
    jobs |= {
        str(name): checked(JobSpec, node, file=where, what=f"job {name!r}")
        for name, node in content.jobs.items()
    }
    rows = []
    for node, what in _written_out(nodes, content.defaults, where):
        row = checked(model, node, file=where, what=what)
        inline = [key for key in _TRAINING if key in row.model_fields_set]
        if row.job is not None:
            if inline:
                refuse(where, f"{what} names a job and has {inline[0]}", "Delete one of them.")
            if row.job not in jobs:
                problem = f"{what} has the job {row.job!r}, which is not a job of the file"
                refuse(where, problem, did_you_mean(row.job, jobs))
        elif row.experiment is None:
            refuse(where, f"{what} has nothing to train", "Give it a job or an experiment.")
        elif row.label in jobs:
            refuse(where, f"{what} is also the name of a job", "Give the row another label.")
        else:
            jobs[row.label] = JobSpec(**row.model_dump(include=set(_TRAINING)))
        rows.append(row)
    _refuse_contradictions(jobs, rows, where)
    return jobs, tuple(rows)


def _refuse_contradictions(
    jobs: Mapping[str, JobSpec], rows: Sequence[Row | Arm], where: str
) -> None:
    """Refuse repeated labels, unknown jobs, and jobs that wait for each other."""
    labels = [row.label for row in rows]
    for label in labels:
        if labels.count(label) > 1:
            refuse(where, f"two rows have the label {label!r}", "Give each its own.")
    needed = [
        (f"job {name!r} has the parent", parent)
        for name, job in jobs.items()
        for parent in job.needs
    ]
    needed += [
        (f"row {row.label!r} needs", name)
        for row in rows
        for several in row.eval_parents.values()
        for name in several
    ]
    for who, name in needed:
        if name not in jobs:
            problem = f"{who} {name!r}, which is not a job of the file"
            refuse(where, problem, did_you_mean(name, jobs))
    try:
        TopologicalSorter({name: job.needs for name, job in jobs.items()}).prepare()
    except CycleError as error:
        circle = " <- ".join(reversed(error.args[1]))
        refuse(where, f"the jobs wait for each other: {circle}", "Break the circle.")
