"""The record of a training: one JSON object a line, exact across kills and resumptions."""

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from flowexp.files import room_for, write_text

__all__ = ["MetricsFile", "processor_seconds", "read_rows", "training_seconds"]

SECONDS = "time/seconds"
"""The column of the time spent training, over all sessions."""

CORES = "time/cores"
"""The column of the processor time that a second took on average since the row before."""

_FLUSH_SECONDS = 1.0


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file; a last line that a kill cut off is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "step" in row:
            yield row


def training_seconds(rows: Iterable[Mapping[str, Any]]) -> float:
    """Wall time of the training in seconds, over all sessions; 0 if the rows have none."""
    return max((float(row.get(SECONDS) or 0.0) for row in _on_one_clock(rows)), default=0.0)


def processor_seconds(rows: Iterable[Mapping[str, Any]]) -> float:
    """Processor time of the training in seconds, all threads together; 0 if the rows have none.

    Other work on the machine lengthens the wall time of a training, but hardly this one.
    """
    spent = before = 0.0
    for row in _on_one_clock(rows):
        now = float(row.get(SECONDS) or before)
        spent += (now - before) * float(row.get(CORES) or 0.0)
        before = now
    return spent


def _on_one_clock(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows with seconds accumulated over sessions that restarted at 0."""
    before = last = 0.0
    for row in rows:
        now = row.get(SECONDS)
        if now is None:
            yield dict(row)
            continue
        if now < last:
            before += last
        last = float(now)
        yield {**row, SECONDS: before + last}


class MetricsFile:
    """Appends rows; on resumption drops those the checkpoint does not know.

    Rows reach the file at least once a second and whenever :meth:`flush` is called, which happens
    before every checkpoint: a kill loses no row that will not be written again.

    Args:
        path: The file.
        step: Rows after this step, and partial ones, are removed: they will be written again.

    Attributes:
        last_row: The last row, or None.
        dropped_step: The last step of the rows that were removed, or -1.
        seconds: Wall time of the training until ``step``, over all sessions so far.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        self.path = path
        rows = list(_on_one_clock(read_rows(path)))
        done = [row for row in rows if row["step"] <= step]
        kept = [row for row in done if not row.get("partial")]
        self.seconds = training_seconds(done)
        removed = (row["step"] for row in rows if row["step"] > step or row.get("partial"))
        self.dropped_step = max(removed, default=-1)
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self.last_row: dict[str, Any] | None = kept[-1] if kept else None
        self._file: IO[str] = path.open("a", encoding="utf-8")
        self._flushed = time.monotonic()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; numbers that are not finite become null, as JSON has none."""
        self.last_row = dict(row)
        with room_for(self.path):
            self._file.write(json.dumps({k: _finite(value) for k, value in row.items()}) + "\n")
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self, *, durable: bool = False) -> None:
        """Hand the rows to the system; ``durable`` waits until they are on the disk."""
        with room_for(self.path):
            self._file.flush()
            if durable:
                os.fsync(self._file.fileno())
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close the file."""
        with room_for(self.path):
            self._file.close()


def _finite(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    return None if isinstance(value, float) and not math.isfinite(value) else value
