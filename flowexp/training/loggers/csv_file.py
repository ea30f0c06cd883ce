"""Rows as a table that any spreadsheet reads."""

import csv
import io
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

from flowexp.files import write_text
from flowexp.runs import RunDirectory
from flowexp.runs.metrics_file import read_rows
from flowexp.training.loggers.base import RunLogger

__all__ = ["CSVLogger"]


class CSVLogger(RunLogger):
    """``metrics.csv``, or another name: one column per metric, one line per row.

    The file is made from ``metrics.jsonl`` at every start, so that a resumption repeats no row, and
    again when a new metric needs a new column. Rows that other callbacks logged are kept.
    """

    def __init__(self, *, name: str = "metrics.csv") -> None:
        self._file_name = name
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = []
        self._path: Path | None = None
        self._file: IO[str] | None = None

    def start(self, run: RunDirectory, *, config: Mapping[str, Any], step: int) -> None:
        self._path = run.path / self._file_name
        others = [
            row for row in _read(self._path) if "kimg" not in row and int(row["step"]) <= step
        ]
        rows = [*read_rows(run.metrics_file), *others]
        self._rows = sorted(rows, key=lambda row: int(row["step"]))
        self._rewrite()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step or 0, **metrics}
        same_step = takewhile(lambda old: int(old["step"]) == row["step"], reversed(self._rows))
        if any(row.keys() == old.keys() for old in same_step):
            return  # a resumed training repeats what was logged at the moment of its checkpoint
        self._rows.append(row)
        if not row.keys() <= set(self._columns):
            self._rewrite()
        elif self._file is not None:
            self._file.write(_table([row], self._columns, header=False))

    def finalize(self, status: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rewrite(self) -> None:
        """Write header and all rows anew, then append again."""
        if self._path is None:
            return
        self.finalize("rewritten")
        self._columns = list(dict.fromkeys(key for row in self._rows for key in row))
        write_text(self._path, _table(self._rows, self._columns, header=True))
        self._file = self._path.open("a", newline="")


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of an earlier file, each with the columns it has; a cut last line is left out."""
    if not path.exists():
        return []
    rows = csv.DictReader(io.StringIO(path.read_text()))
    return [{k: v for k, v in row.items() if v} for row in rows if None not in row.values()]


def _table(rows: Iterable[Mapping[str, Any]], columns: list[str], *, header: bool) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header and columns:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
