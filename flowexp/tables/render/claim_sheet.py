"""Claims as a sheet: the claim, the measurements, and the result of the stated test."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flowexp.tables.render.cells import (
    cost_cell,
    measured_cell,
    measured_record,
    nfe_cell,
    row_notes,
    samples_cell,
    titles,
)
from flowexp.tables.render.numbers import number_text, p_text
from flowexp.tables.render.sheet import Column, Line, Notes, Sheet, Tone
from flowexp.tables.results import ClaimResult, RowResult

__all__ = ["claims_sheet"]

_TONES: Mapping[str, Tone] = {
    "holds": "good",
    "does not hold": "bad",
    "undecided": "open",
    "missing": "open",
}


def claims_sheet(claims: Sequence[ClaimResult]) -> Sheet:
    """Claims as a sheet, one line for each arm.

    Raises:
        ValueError: There is none.
    """
    if not claims:
        raise ValueError("there is no claim to show")
    notes = Notes()
    lines = [line for claim in claims for line in _lines(claim, notes)]
    names = ("claim", "source", "published", "verdict")
    numbers = ("measured", "samples", "NFE", "cost")
    return Sheet(
        name=claims[0].name if len(claims) == 1 else "claims",
        title=claims[0].title if len(claims) == 1 else "Claims",
        columns=(
            *(Column(title=name) for name in names),
            Column(title="p", numeric=True),
            Column(title="arm"),
            *(Column(title=name, numeric=True) for name in numbers),
            Column(title="notes"),
        ),
        lines=tuple(lines),
        notes=notes.texts,
        remarks=_remarks(claims),
        records=tuple(_record(claim, arm) for claim in claims for arm in claim.arms),
    )


def _lines(claim: ClaimResult, notes: Notes) -> list[Line]:
    """One line per arm; the first also names the claim."""
    lines = []
    for number, arm in enumerate(claim.arms):
        first = number == 0
        heading = (
            claim.title,
            claim.source,
            claim.published,
            claim.verdict,
            p_text(claim.p_value),
        )
        own = row_notes(arm) + ([_test(claim)] if first else [])
        cells = (
            *(heading if first else [""] * len(heading)),
            arm.label,
            measured_cell(arm),
            samples_cell(arm.measured),
            nfe_cell(arm),
            cost_cell(arm.measured),
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


def _remarks(claims: Sequence[ClaimResult]) -> tuple[str, ...]:
    remarks = [
        "The last arm of a claim is claimed to be better than the others; p is in that direction.",
        "Arms are compared with each other; the published figures belong to the paper's protocol.",
        "± is the standard deviation over training seeds; cost is over all seeds.",
    ]
    places = dict.fromkeys(f"Budget {claim.budget}; {claim.hardware}." for claim in claims)
    return (*remarks, *places)


def _record(claim: ClaimResult, arm: RowResult) -> dict[str, Any]:
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
        **measured_record(arm.measured, prefix="measured"),
        "log": arm.log,
        "runs": " ".join(arm.runs),
    }
