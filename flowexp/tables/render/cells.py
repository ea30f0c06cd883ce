"""What tables, claims and curves say alike: measured numbers, and which may be compared."""

from collections.abc import Iterable
from dataclasses import dataclass

from flowexp.tables.render.numbers import mean_text, number_text
from flowexp.tables.results import RowResult, TableResult

__all__ = ["Kind", "kind_of", "measured_cell", "stated_protocol", "titles"]


@dataclass(frozen=True)
class Kind:
    """Numbers that may be compared with each other; two kinds never share a column or an axis.

    Attributes:
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


def measured_cell(row: RowResult, *, minimum: bool = False) -> str:
    """``12.5 ± 0.5 (3 seeds)``, with ``minimum`` beside it; or the status of a row without one."""
    cell = row.measured
    if cell is None:
        return row.status
    text = mean_text(cell.mean, spread=cell.spread, count=len(cell.values))
    if minimum and len(cell.values) > 1:
        text += f", minimum {number_text(cell.minimum)}"
    return text


def stated_protocol(table: TableResult) -> str:
    """The published protocol in words: ``fid, num_samples 50000, repetitions 3``."""
    stated = [f"{key} {value}" for key, value in table.protocol.items() if value is not None]
    return ", ".join([table.metric, *stated])


def titles(rows: Iterable[RowResult]) -> list[str]:
    """The full names of the measured metrics, each once."""
    return list(dict.fromkeys(row.measured.title for row in rows if row.measured is not None))
