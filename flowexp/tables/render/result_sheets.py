"""Tables and claims as sheets; numbers that cannot be compared never share a column."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flowexp.tables.render.cells import (
    Kind,
    cost_text,
    count_text,
    kind_of,
    measured_cell,
    number_text,
    p_text,
    stated_protocol,
    titles,
)
from flowexp.tables.render.over_nfe import table_picture
from flowexp.tables.render.sheet import Column, Line, Notes, Sheet, Tone
from flowexp.tables.results import ClaimResult, Measurement, RowResult, TableResult

__all__ = ["claims_sheet", "table_sheet"]

_RECALLED = "†"
_NOT_COMPARABLE = "‡"
_COSTS = ("samples", "NFE", "cost")
_LONG = ("claim", "source", "published", "metric")
_TONES: Mapping[str, Tone] = {
    "done": "plain",
    "failed": "bad",
    "missing": "open",
    "holds": "good",
    "does not hold": "bad",
    "undecided": "open",
}


def table_sheet(table: TableResult) -> Sheet:
    """A table as a sheet."""
    kinds = list(dict.fromkeys(kind_of(row, budget=table.budget) for row in table.rows))
    kinds.sort(key=lambda kind: not kind.comparable)
    metrics = titles(table.rows)
    minimum = table.protocol.get("reported") == "minimum"
    notes = Notes()
    lines = []
    for row in table.rows:
        mine = kind_of(row, budget=table.budget)
        mark = "" if mine.comparable else f" {_NOT_COMPARABLE}"
        value = measured_cell(row, minimum=minimum) + (mark if row.measured else "")
        cells = [row.label, _published(row) + mark, row.published_source or ""]
        cells += [value if kind == mine else "" for kind in kinds]
        if len(metrics) > 1:
            cells.append(row.measured.title if row.measured else "")
        cells += [*_cost_cells(row), notes.refer(_row_notes(row))]
        lines.append(Line(cells=tuple(cells), tone=_TONES[row.status]))
    names = ["row", "published", "source", *(kind.title for kind in kinds)]
    names += [*(["metric"] if len(metrics) > 1 else []), *_COSTS, "notes"]
    intro = [f"Source: {table.source}.", f"Published: {stated_protocol(table)}."]
    return Sheet(
        name=table.name,
        title=table.title,
        intro=(*intro, f"Measured: {metrics[0]}.") if len(metrics) == 1 else tuple(intro),
        columns=_columns(names, words=("row", "source", "metric", "notes")),
        lines=tuple(lines),
        picture=table_picture(table),
        notes=notes.texts,
        remarks=_table_remarks(table, kinds),
        records=tuple(_table_record(row, table.budget) for row in table.rows),
    )


def _published(row: RowResult) -> str:
    if row.published is None:
        return "-"
    return number_text(row.published, digits=6) + ("" if row.verified else f" {_RECALLED}")


def _table_remarks(table: TableResult, kinds: Sequence[Kind]) -> tuple[str, ...]:
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
    if table.protocol.get("selection") == "best_of_snapshots":
        remarks.append(
            "The publication reports the best snapshot of a training, which is lower than the last "
            "weights by chance too; it compares with numbers that were selected likewise."
        )
    versions = ", ".join(f"{name} {version}" for name, version in table.versions.items())
    remarks.append(f"{table.hardware}; {versions}." if versions else f"{table.hardware}.")
    return tuple(remarks)


def _table_record(row: RowResult, budget: str) -> dict[str, Any]:
    kind = kind_of(row, budget=budget)
    return {
        "row": row.label,
        "published": row.published,
        "published_source": row.published_source,
        "published_nfe": row.published_nfe,
        "published_verified": row.verified,
        "status": row.status,
        "comparable": kind.comparable,
        **_measured_record(row.measured, prefix=kind.prefix),
        "protocol_mismatch": "; ".join(row.mismatch),
        "log": row.log,
        "runs": " ".join(row.runs),
    }


def claims_sheet(claims: Sequence[ClaimResult]) -> Sheet:
    """Claims, at least one, as a sheet: a line for each arm, and the results of the tests."""
    if not claims:
        raise ValueError("there is no claim to show")
    notes = Notes()
    lines = [line for claim in claims for line in _claim_lines(claim, notes)]
    words = ("claim", "source", "published", "verdict", "arm", "notes")
    return Sheet(
        name=claims[0].name if len(claims) == 1 else "claims",
        title=claims[0].title if len(claims) == 1 else "Claims",
        columns=_columns([*words[:4], "p", "arm", "measured", *_COSTS, "notes"], words=words),
        lines=tuple(lines),
        notes=notes.texts,
        remarks=(
            "The last arm of a claim is claimed to be better than the others; p is in that "
            "direction.",
            "Arms are compared with each other; the published figures belong to the paper's "
            "protocol.",
            "± is the standard deviation over training seeds; cost is over all seeds.",
            *dict.fromkeys(f"Budget {claim.budget}; {claim.hardware}." for claim in claims),
        ),
        records=tuple(_claim_record(claim, arm) for claim in claims for arm in claim.arms),
    )


def _claim_lines(claim: ClaimResult, notes: Notes) -> list[Line]:
    """One line per arm; the first also names the claim."""
    heading = (claim.title, claim.source, claim.published, claim.verdict, p_text(claim.p_value))
    lines = []
    for number, arm in enumerate(claim.arms):
        first = number == 0
        own = _row_notes(arm) + ([_test(claim)] if first else [])
        cells = (
            *(heading if first else [""] * len(heading)),
            arm.label,
            measured_cell(arm),
            *_cost_cells(arm),
            notes.refer(own),
        )
        tone = _TONES[claim.verdict] if first else "plain"
        lines.append(Line(cells=cells, tone=tone, starts_group=first))
    return lines


def _test(claim: ClaimResult) -> str:
    """Metric, direction and test in one sentence."""
    what = ", ".join(titles(claim.arms)) or "not measured yet"
    text = f"{what}; {claim.direction} is better; {claim.test}"
    if not math.isnan(claim.statistic):
        text += f"; statistic {number_text(claim.statistic, digits=3)}"
    return text


def _claim_record(claim: ClaimResult, arm: RowResult) -> dict[str, Any]:
    return {
        "name": claim.name,
        "claim": claim.title,
        "source": claim.source,
        "published": claim.published,
        "verdict": claim.verdict,
        "test": claim.test,
        "direction": claim.direction,
        "statistic": claim.statistic,
        "p": claim.p_value,
        "budget": claim.budget,
        "arm": arm.label,
        "status": arm.status,
        **_measured_record(arm.measured, prefix="measured"),
        "log": arm.log,
        "runs": " ".join(arm.runs),
    }


def _columns(names: Sequence[str], *, words: Sequence[str]) -> tuple[Column, ...]:
    """Columns, numeric except those in ``words``; costs and long texts can move above the table."""
    prose = {*words} & {*_LONG} | {_COSTS[-1]}
    return tuple(
        Column(title=name, numeric=name not in words, prose=name in prose) for name in names
    )


def _cost_cells(row: RowResult) -> tuple[str, str, str]:
    """The samples behind each value, evaluations of one (and the published ones), and the cost."""
    cell = row.measured
    published = "" if row.published_nfe is None else count_text(row.published_nfe)
    if cell is None:
        return "", f"(published {published})" if published else "", ""
    nfe = count_text(cell.nfe)
    if published not in ("", nfe):
        nfe += f" (published {published})"
    at = f" at {cell.kimg:g} kimg" if cell.kimg else ""
    return count_text(cell.n_gen) + at, nfe, cost_text(cell.seconds, device=cell.device)


def _row_notes(row: RowResult) -> list[str]:
    """The notes on a row, one sentence each."""
    notes = []
    if row.status == "failed":
        notes.append(f"failed; see {row.log}" if row.log else "failed without a log")
    if row.status == "missing":
        notes.append(f"not run yet; see {row.log}" if row.log else "not run yet")
    if row.mismatch:
        notes.append("other protocol than published: " + "; ".join(row.mismatch))
    if row.measured is not None and row.measured.floor is not None:
        notes.append(f"held-out real data score {number_text(row.measured.floor)}")
    if row.measured is not None and row.measured.notice:
        notes.append(row.measured.notice)
    return notes


def _measured_record(cell: Measurement | None, *, prefix: str) -> dict[str, Any]:
    """Every number of a cell on its own, for CSV; ``prefix`` names the column they belong to."""
    if cell is None:
        return {}
    return {
        f"{prefix}_mean": cell.mean,
        f"{prefix}_spread": cell.spread,
        f"{prefix}_minimum": cell.minimum,
        f"{prefix}_values": " ".join(map(repr, cell.values)),
        "metric": cell.title,
        "seeds": " ".join(map(str, cell.seeds)),
        "samples": cell.n_gen,
        "kimg": cell.kimg,
        "nfe": cell.nfe,
        "seconds": cell.seconds,
        "device": cell.device,
        "floor": cell.floor,
        "notice": cell.notice,
    }
