"""The evaluations stored beside a run; the seed ranges of one command are one evaluation."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowexp.errors import UsageError
from flowexp.metrics.protocol import MetricRecord, Protocol

__all__ = ["StoredEvaluation", "read_evaluations"]


@dataclass(frozen=True, kw_only=True)
class StoredEvaluation:
    """One metric of one ``flowexp eval``.

    Attributes:
        records: One per range of seeds, at least one.
        created: When, in ISO 8601.
        overrides: Overrides of the command line.
        directory: Output directory of the evaluation at that time.
        checkpoint: ``kimg``, ``sha256`` and ``path`` of the checkpoint.
        count: Samples over all ranges.
        seconds: Wall time over all ranges, of all metrics together.
    """

    records: tuple[MetricRecord, ...]
    created: str
    overrides: tuple[str, ...]
    directory: str
    checkpoint: Mapping[str, Any]
    count: int
    seconds: float

    @property
    def name(self) -> str:
        """The metric's name, for example ``fid``."""
        return self.records[0].name

    @property
    def title(self) -> str:
        """Full display name, never without protocol and sample count."""
        return self.records[0].title

    @property
    def protocol(self) -> Protocol:
        """The protocol; of several ranges that of the first."""
        return self.records[0].protocol

    @property
    def values(self) -> tuple[float, ...]:
        """One per range of seeds."""
        return tuple(record.value for record in self.records)

    @property
    def mean(self) -> float:
        """Mean over the ranges."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the ranges; nan for one."""
        finite = all(map(math.isfinite, self.values))
        return statistics.stdev(self.values) if len(self.values) > 1 and finite else math.nan

    @property
    def floor(self) -> float | None:
        """The score of held-out real data, if it was measured."""
        return self.records[0].extra.get("floor")


def read_evaluations(file: Path) -> tuple[StoredEvaluation, ...]:
    """The evaluations in ``results.json``, oldest first; none if there is no such file.

    Raises:
        UsageError: The file holds something else.
    """
    if not file.is_file():
        return ()
    try:
        entries = json.loads(file.read_text())["evaluations"]
        grouped: dict[tuple[str, str], list[tuple[Mapping[str, Any], MetricRecord]]] = {}
        for number, entry in enumerate(entries):
            command = str(entry.get("directory", f"evaluation {number}"))
            for stored in entry["records"]:
                fields = {key: value for key, value in stored.items() if key != "key"}
                record = MetricRecord.from_dict(fields)
                grouped.setdefault((command, record.key), []).append((entry, record))
        return tuple(_evaluation(found) for found in grouped.values())
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"cannot read the results in {file} ({error}).", key="runs") from error


def _evaluation(found: Sequence[tuple[Mapping[str, Any], MetricRecord]]) -> StoredEvaluation:
    entries = [entry for entry, _ in found]
    return StoredEvaluation(
        records=tuple(record for _, record in found),
        created=str(entries[0].get("created", "")),
        overrides=tuple(entries[0].get("overrides", ())),
        directory=str(entries[0].get("directory", "")),
        checkpoint=dict(entries[0].get("checkpoint", {})),
        count=sum(int(entry.get("count", 0)) for entry in entries),
        seconds=sum(float(entry.get("seconds", 0.0)) for entry in entries),
    )
