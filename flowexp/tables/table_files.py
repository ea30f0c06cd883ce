"""The files of tables and claims, read: grids and variations written out, jobs checked."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from flowexp.config.locations import conf_dir
from flowexp.config.nearest import did_you_mean
from flowexp.errors import UsageError
from flowexp.tables import syntax
from flowexp.tables.specs import ClaimFile, JobSpec, RowSpec, TableFile
from flowexp.tables.syntax import checked, refuse

__all__ = ["names", "read_claim", "read_table"]

_Kind = Literal["table", "claim"]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TRAINING = ("experiment", "overrides", "parents", "after")


def names(kind: _Kind, *, config_dir: str | None = None) -> list[str]:
    """The names of all tables or claims, sorted.

    Raises:
        UsageError: A file of claims is no YAML, or its ``vary`` is not as it should be.
    """
    found: set[str] = set()
    for folder in _folders(kind, config_dir):
        for file in folder.rglob("*.yaml"):
            found |= set(_contents(kind, folder, file))
    return sorted(found)


def read_table(name: str, *, config_dir: str | None = None) -> TableFile:
    """The table of this name.

    Its rows are a list. An entry with the key ``columns`` is a grid, rows times columns, and stands
    for many rows, see :func:`flowexp.tables.syntax.cells`. What all rows share may be given once
    under ``defaults``, such as ``defaults: {source: Table 1, verified: true}``; a row's own key
    replaces that of the defaults.

    Raises:
        UsageError: There is none, or its file says something it may not.
    """
    where = f"table {name}"
    content = _content("table", name, config_dir)
    table = checked(syntax.Table, content, file=where, what="the table")
    checked(syntax.Protocol, table.protocol, file=where, what="protocol")
    jobs = _jobs(table.jobs, where)
    rows = tuple(
        _row(checked(syntax.Row, node, file=where, what=what), jobs, where, what)
        for node, what in _written_out(table.rows, table.defaults, where)
    )
    _refuse_contradictions(jobs, rows, where)
    return TableFile(
        name=name,
        title=table.title,
        source=table.source,
        metric=table.metric,
        protocol=table.protocol,
        jobs=jobs,
        rows=rows,
    )


def read_claim(name: str, *, config_dir: str | None = None) -> ClaimFile:
    """The claim of this name.

    A file with the key ``vary`` holds several claims, see
    :func:`flowexp.tables.syntax.variations`; ``defaults`` are those of a table.

    Raises:
        UsageError: There is none, or its file says something it may not.
    """
    where = f"claim {name}"
    content = _content("claim", name, config_dir)
    claim = checked(syntax.Claim, content, file=where, what="the claim")
    jobs = _jobs(claim.jobs, where)
    rows = tuple(
        _row(checked(syntax.Arm, node, file=where, what=what), jobs, where, what)
        for node, what in _written_out(claim.arms, claim.defaults, where)
    )
    _refuse_contradictions(jobs, rows, where)
    return ClaimFile(name=name, jobs=jobs, rows=rows, **claim.model_dump(exclude=_NOT_COPIED))


_NOT_COPIED = {"jobs", "arms", "defaults"}


def _folders(kind: str, config_dir: str | None) -> list[Path]:
    own = [] if config_dir is None else [Path(config_dir) / kind]
    return [folder for folder in (*own, conf_dir() / kind) if folder.is_dir()]


def _content(kind: _Kind, name: str, config_dir: str | None) -> dict[str, Any]:
    """What is said of this table or claim, in the file of its name or in one that varies."""
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
        raise UsageError(f"{file} is no YAML: {text}.", key=where) from error
    if not isinstance(content, dict):
        refuse(where, f"{file} holds no mapping", f"See {conf_dir() / kind} for others.")
    if "vary" not in content:
        return {str(name): content}
    found = syntax.variations(content, file=where)
    return {str(name.with_name(one)): varied for one, varied in found.items()}


def _written_out(
    listed: list[Any], defaults: Mapping[str, Any], where: str
) -> Iterator[tuple[dict[str, Any], str]]:
    """Every row with its defaults, and how messages name it; of a grid, every cell."""
    for number, entry in enumerate(listed):
        if isinstance(entry, dict) and "columns" in entry:
            several = list(syntax.cells(entry, file=where))
        else:
            several = [entry]
        for node in several:
            row = {**defaults, **node} if isinstance(node, dict) else {}
            if not isinstance(row.get("label"), str):
                refuse(where, f"row {number} has no label", "Give every row a label: label: ....")
            yield row, f"row {row['label']!r}"


def _jobs(nodes: Mapping[str, Any], where: str) -> dict[str, JobSpec]:
    return {
        str(name): JobSpec(
            **checked(syntax.Job, node, file=where, what=f"job {name!r}").model_dump()
        )
        for name, node in nodes.items()
    }


def _row(row: syntax.Row | syntax.Arm, jobs: dict[str, JobSpec], where: str, what: str) -> RowSpec:
    """The row; a training that it describes itself joins ``jobs`` under the row's label."""
    inline = [key for key in _TRAINING if key in row.model_fields_set]
    if row.job is not None:
        if inline:
            refuse(where, f"{what} names a job and has {inline[0]}", "Drop one of them.")
        if row.job not in jobs:
            problem = f"{what} names no job of the file: {row.job!r}"
            refuse(where, problem, did_you_mean(row.job, jobs))
    elif row.experiment is None:
        refuse(where, f"{what} has nothing to train", "Give it a job or an experiment.")
    elif row.label in jobs:
        refuse(where, f"{what} is also the name of a job", "Give the row another label.")
    else:
        jobs[row.label] = JobSpec(**row.model_dump(include=set(_TRAINING)))
    given = row.model_dump(exclude={"job", *_TRAINING})
    return RowSpec(job=row.job or row.label, **given)


def _refuse_contradictions(
    jobs: Mapping[str, JobSpec], rows: tuple[RowSpec, ...], where: str
) -> None:
    """Labels that are there twice, jobs that are not there, jobs that wait for each other."""
    labels = [row.label for row in rows]
    for label in labels:
        if labels.count(label) > 1:
            refuse(where, f"two rows have the label {label!r}", "Give each its own.")
    for name, job in jobs.items():
        for parent in job.needs:
            if parent not in jobs:
                problem = f"job {name!r} has the parent {parent!r}, which is not a job of the file"
                refuse(where, problem, did_you_mean(parent, jobs))
    for name in jobs:
        _refuse_circles(name, jobs, (), where)
    for row in rows:
        for name in (name for several in row.eval_parents.values() for name in several):
            if name not in jobs:
                problem = f"row {row.label!r} needs {name!r}, which is not a job of the file"
                refuse(where, problem, did_you_mean(name, jobs))


def _refuse_circles(
    name: str, jobs: Mapping[str, JobSpec], above: tuple[str, ...], where: str
) -> None:
    if name in above:
        circle = " <- ".join((*above[above.index(name) :], name))
        refuse(where, f"the jobs wait for each other: {circle}", "Break the circle.")
    for parent in jobs[name].needs:
        _refuse_circles(parent, jobs, (*above, name), where)
