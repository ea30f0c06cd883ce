"""Rows as a table that any spreadsheet reads."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from flowexp.files import write_text
from flowexp.runs import RunDirectory
from flowexp.training.metrics_file import read_rows

__all__ = ["CSVLogger"]


class CSVLogger:
    """``metrics.csv``: one column per metric, one line per row.

    The file is made from ``metrics.jsonl`` at every start, so that it has no rows twice after a
    resumption, and again when a new metric needs a new column.

    Args:
        name: File name in the run directory.
    """

    def __init__(self, *, name: str = "metrics.csv") -> None:
        self.name = name
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = []
        self._path: Path | None = None
        self._file: IO[str] | None = None

    def start(self, run: RunDirectory, *, config: Mapping[str, Any], step: int) -> None:
        """Write what is known so far."""
        self._path = run.path / self.name
        self._rows = list(read_rows(run.metrics_file))
        self._rewrite()

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a line."""
        self._rows.append(dict(row))
        if not row.keys() <= set(self._columns):
            self._rewrite()
        elif self._file is not None:
            self._file.write(_table([row], self._columns, header=False))

    def finish(self, *, failed: bool) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rewrite(self) -> None:
        """Write header and all rows anew, then append again."""
        if self._path is None:
            return
        self.finish(failed=False)
        self._columns = list(dict.fromkeys(key for row in self._rows for key in row))
        write_text(self._path, _table(self._rows, self._columns, header=True))
        self._file = self._path.open("a", newline="")


def _table(rows: Iterable[Mapping[str, Any]], columns: list[str], *, header: bool) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header and columns:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
