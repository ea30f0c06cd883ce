"""Which measured numbers may be compared."""

from dataclasses import dataclass

from flowexp.tables.results import RowResult

__all__ = ["Kind", "kind_of"]


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
