"""Sheets as comma-separated values: every number on its own, nothing rounded."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from flowexp.tables.render.sheet import Sheet

__all__ = ["Csv"]


class Csv:
    """One header and the records of all sheets; a sheet of a budget has columns of its own."""

    suffix = ".csv"

    def draw(self, sheets: Sequence[Sheet]) -> str:
        """The records of the sheets."""
        records = [record for sheet in sheets for record in sheet.records]
        written = io.StringIO()
        writer = csv.DictWriter(written, fieldnames=_names(records), lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow({key: _plain(value) for key, value in record.items()})
        return written.getvalue()


def _names(records: Sequence[Any]) -> list[str]:
    """All keys; one that only some records have stands where these have it."""
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
    """Nothing for what is not known, lower-case words for truth."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).lower() if isinstance(value, bool) else value
