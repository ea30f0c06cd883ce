"""A paper's table as a sheet; numbers that cannot be compared never share a column."""

from collections.abc import Mapping
from typing import Any

from flowexp.tables.render.cells import (
    Kind,
    cost_cell,
    kind_of,
    measured_cell,
    measured_record,
    nfe_cell,
    row_notes,
    samples_cell,
    stated_protocol,
    titles,
)
from flowexp.tables.render.numbers import number_text
from flowexp.tables.render.over_nfe import table_picture
from flowexp.tables.render.sheet import Column, Line, Notes, Sheet, Tone
from flowexp.tables.results import RowResult, TableResult

__all__ = ["table_sheet"]

_RECALLED = "†"
_NOT_COMPARABLE = "‡"
_TONES: Mapping[str, Tone] = {"done": "plain", "missing": "open", "failed": "bad"}


def table_sheet(table: TableResult) -> Sheet:
    """A table as a sheet."""
    kinds = list(dict.fromkeys(kind_of(row, budget=table.budget) for row in table.rows))
    kinds.sort(key=lambda kind: not kind.comparable)
    several_metrics = len(titles(table.rows)) > 1
    minimum = table.protocol.get("reported") == "minimum"
    notes = Notes()
    lines = []
    for row in table.rows:
        mine = kind_of(row, budget=table.budget)
        mark = "" if mine.comparable else f" {_NOT_COMPARABLE}"
        value = measured_cell(row, minimum=minimum) + (mark if row.measured else "")
        cells = [row.label, _published(row) + mark, row.published_source or ""]
        cells += [value if kind == mine else "" for kind in kinds]
        if several_metrics:
            cells.append(row.measured.title if row.measured else "")
        cells += [samples_cell(row.measured), nfe_cell(row), cost_cell(row.measured)]
        cells.append(notes.refer(row_notes(row)))
        lines.append(Line(cells=tuple(cells), tone=_TONES[row.status]))
    return Sheet(
        name=table.name,
        title=table.title,
        intro=_intro(table),
        columns=_columns(kinds, several_metrics=several_metrics),
        lines=tuple(lines),
        picture=table_picture(table),
        notes=notes.texts,
        remarks=_remarks(table, kinds),
        records=tuple(_record(row, table.budget) for row in table.rows),
    )


def _columns(kinds: list[Kind], *, several_metrics: bool) -> tuple[Column, ...]:
    columns = [Column(title="row"), Column(title="published", numeric=True)]
    columns.append(Column(title="source"))
    columns += [Column(title=kind.title, numeric=True) for kind in kinds]
    columns += [Column(title="metric")] if several_metrics else []
    columns += [Column(title=name, numeric=True) for name in ("samples", "NFE", "cost")]
    return (*columns, Column(title="notes"))


def _published(row: RowResult) -> str:
    if row.published is None:
        return "-"
    return number_text(row.published, digits=6) + ("" if row.verified else f" {_RECALLED}")


def _intro(table: TableResult) -> tuple[str, ...]:
    lines = [f"Source: {table.source}.", f"Published: {stated_protocol(table)}."]
    measured = titles(table.rows)
    if len(measured) == 1:
        lines.append(f"Measured: {measured[0]}.")
    return tuple(lines)


def _remarks(table: TableResult, kinds: list[Kind]) -> tuple[str, ...]:
    remarks = []
    if any(row.published is not None and not row.verified for row in table.rows):
        remarks.append(f"{_RECALLED} recalled, not checked against the publication.")
    if any(row.scaled for row in table.rows):
        remarks.append(
            f"{_NOT_COMPARABLE} not comparable: the row was scaled down by budget {table.budget}, "
            "so its number says nothing about the published one."
        )
    if any(kind.title == "measured, other protocol" for kind in kinds):
        remarks.append(f"{_NOT_COMPARABLE} not comparable: measured with another protocol.")
    if any(row.measured is not None for row in table.rows):
        remarks.append("± is the standard deviation over training seeds; cost is over all seeds.")
    if table.protocol.get("reported") == "minimum":
        remarks.append(
            "The publication reports a minimum: the value of a training seed is the minimum of its "
            "evaluations, and minimum is the smallest over the training seeds."
        )
    versions = ", ".join(f"{name} {version}" for name, version in table.versions.items())
    remarks.append(f"{table.hardware}; {versions}." if versions else f"{table.hardware}.")
    return tuple(remarks)


def _record(row: RowResult, budget: str) -> dict[str, Any]:
    kind = kind_of(row, budget=budget)
    return {
        "row": row.label,
        "published": row.published,
        "published_source": row.published_source,
        "published_nfe": row.published_nfe,
        "published_verified": row.verified,
        "status": row.status,
        "comparable": kind.comparable,
        **measured_record(row.measured, prefix=kind.prefix),
        "protocol_mismatch": "; ".join(row.mismatch),
        "log": row.log,
        "runs": " ".join(row.runs),
    }
