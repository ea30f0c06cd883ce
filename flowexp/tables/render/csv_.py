"""Sheets as comma-separated values: every number on its own, nothing rounded."""

from collections.abc import Sequence
from typing import Any

from flowexp.tables.render.sheet import Form, Sheet

__all__ = ["Csv"]


class Csv(Form):
    """One header and the records of all sheets; a sheet of a budget has columns of its own."""

    suffix = ".csv"

    def draw(self, sheets: Sequence[Sheet]) -> str:
        import pandas

        records = [record for sheet in sheets for record in sheet.records]
        names = _names(records)
        cells = [[_plain(record.get(name)) for name in names] for record in records]
        # As objects, because a column of counts with gaps would become one of floats.
        frame = pandas.DataFrame(cells, columns=names, dtype=object)
        return frame.to_csv(index=False, lineterminator="\n")


def _names(records: Sequence[Any]) -> list[str]:
    """All keys, each in the place that it has in its records."""
    names: list[str] = []
    for record in records:
        place = 0
        for key in record:
            if key in names:
                place = names.index(key) + 1
            else:
                names.insert(place, key)
                place += 1
    return names


def _plain(value: Any) -> Any:  # noqa: ANN401 -- any value of a record
    """Lower-case words for truth."""
    return str(value).lower() if isinstance(value, bool) else value
