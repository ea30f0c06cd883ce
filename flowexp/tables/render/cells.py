"""Texts that tables and claims share: measured numbers, costs and notes."""

from dataclasses import dataclass
from typing import Any

from flowexp.tables.render.numbers import cost_text, count_text, mean_text, number_text
from flowexp.tables.results import Measurement, RowResult, TableResult

__all__ = [
    "cost_cell",
    "measured_cell",
    "measured_record",
    "nfe_cell",
    "row_notes",
    "samples_cell",
    "stated_protocol",
    "titles",
    "Kind",
    "kind_of",
]


def measured_cell(row: RowResult, *, minimum: bool = False) -> str:
    """``12.5 ± 0.5 (3 seeds)``, with ``minimum`` beside it; or the status of a row without one."""
    cell = row.measured
    if cell is None:
        return row.status
    text = mean_text(cell.mean, spread=cell.spread, count=len(cell.values))
    if minimum and len(cell.values) > 1:
        text += f", minimum {number_text(cell.minimum)}"
    return text


def samples_cell(cell: Measurement | None) -> str:
    """The number of generated samples behind each value."""
    return "" if cell is None else count_text(cell.n_gen)


def nfe_cell(row: RowResult) -> str:
    """Measured evaluations per sample, and the published ones where they differ."""
    published = "" if row.published_nfe is None else count_text(row.published_nfe)
    if row.measured is None:
        return f"(published {published})" if published else ""
    measured = count_text(row.measured.nfe)
    return measured if published in ("", measured) else f"{measured} (published {published})"


def cost_cell(cell: Measurement | None) -> str:
    """Wall time over all seeds and the device."""
    return "" if cell is None else cost_text(cell.seconds, device=cell.device)


def row_notes(row: RowResult) -> list[str]:
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


def stated_protocol(table: TableResult) -> str:
    """The published protocol in words: ``fid, num_samples 50000, repetitions 3``."""
    stated = [f"{key} {value}" for key, value in table.protocol.items() if value is not None]
    return ", ".join([table.metric, *stated])


def titles(rows: tuple[RowResult, ...]) -> list[str]:
    """The full names of the measured metrics, each once."""
    return list(dict.fromkeys(row.measured.title for row in rows if row.measured is not None))


def measured_record(cell: Measurement | None, *, prefix: str) -> dict[str, Any]:
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
        "nfe": cell.nfe,
        "seconds": cell.seconds,
        "device": cell.device,
        "floor": cell.floor,
        "notice": cell.notice,
    }


@dataclass(frozen=True)
class Kind:
    """Numbers that may be compared with each other; two kinds never share a column or an axis.

    Attributes:
        title: Heading of the numbers.
        prefix: Before the names of the numbers in CSV.
        comparable: Whether they may stand beside published ones.
    """

    title: str
    prefix: str
    comparable: bool


def kind_of(row: RowResult, *, budget: str) -> Kind:
    """The kind of a row's measurement."""
    if row.scaled:
        return Kind(f"measured, budget {budget}", f"budget_{budget}", False)
    if row.mismatch:
        return Kind("measured, other protocol", "other_protocol", False)
    return Kind("measured", "measured", True)
