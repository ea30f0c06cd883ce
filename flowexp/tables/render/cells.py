"""What tables, claims and curves say alike: measured numbers, and which may be compared."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from flowexp.tables.results import RowResult, TableResult

__all__ = [
    "cost_text",
    "count_text",
    "mean_text",
    "number_text",
    "p_text",
    "Kind",
    "kind_of",
    "measured_cell",
    "stated_protocol",
    "titles",
]

_HOUR = 3600.0
_ORDINARY = (1e-4, 1e6)
"""Magnitudes that are written without an exponent."""


def number_text(value: float | None, *, digits: int = 4) -> str:
    """A number with ``digits`` significant digits; a dash for None, ``not finite`` for nan."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "not finite"
    text = f"{value:.{digits}g}"
    # 1.234e+05 -> 123400: tables of scores rarely need exponents below a million.
    return f"{float(text):.0f}" if "e" in text and 1 <= abs(float(text)) < 1e6 else text


def mean_text(mean: float, *, spread: float, count: int, of: str = "seed") -> str:
    """Mean and standard deviation of several values: ``12.53 ± 0.48 (3 seeds)``.

    Digits of the mean far below the spread would be noise and are left out.
    """
    if not math.isfinite(mean):
        return "not finite"
    if count < 2 or not math.isfinite(spread):
        return f"{number_text(mean)} ({count} {of}{'' if count == 1 else 's'})"
    two_digits = number_text(spread, digits=2)
    if _ORDINARY[0] <= spread < _ORDINARY[1]:
        two_digits = f"{spread:.{max(0, 1 - _power(spread))}f}"
    return f"{_to_spread(mean, spread)} ± {two_digits} ({count} {of}s)"


def p_text(p_value: float) -> str:
    """A p value: ``0.043``, ``< 0.001``, or a dash for nan."""
    if math.isnan(p_value):
        return "-"
    return "< 0.001" if p_value < 1e-3 else f"{p_value:.3f}"


def count_text(value: float) -> str:
    """A count: an integer where it is one, else one decimal (mean evaluations of a solver)."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def cost_text(seconds: float, *, device: str) -> str:
    """Wall time and the device it was spent on: ``61 s, cpu``; hours beside large ones."""
    if not math.isfinite(seconds):
        return device
    shown = f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    hours = f" ({seconds / _HOUR:.1f} h)" if seconds >= _HOUR else ""
    return f"{shown}{hours}, {device}"


def _to_spread(mean: float, spread: float) -> str:
    """The mean to the second digit of the spread, but with at least three of its own."""
    if spread <= 0 or mean == 0 or not _ORDINARY[0] <= abs(mean) < _ORDINARY[1]:
        return number_text(mean)
    return f"{mean:.{max(0, 1 - _power(spread), 2 - _power(mean))}f}"


def _power(value: float) -> int:
    """The power of ten of the first digit."""
    return math.floor(math.log10(abs(value)))


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
