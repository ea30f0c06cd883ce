"""The content of a run directory, read once."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowexp.errors import UsageError
from flowexp.report.evaluations import StoredEvaluation, read_evaluations
from flowexp.runs import RunDirectory
from flowexp.runs.metrics_file import read_rows

__all__ = ["RunRecord", "TrainingGrid", "distinct_names", "read_run"]


@dataclass(frozen=True, kw_only=True)
class TrainingGrid:
    """A picture of samples drawn while training.

    Attributes:
        kimg: Thousands of images the run had seen.
        path: The picture.
    """

    kimg: float
    path: Path


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run.

    Attributes:
        name: Its name here, see :func:`distinct_names`.
        path: Its directory.
        config: Its resolved configuration.
        overrides: Overrides of the command line.
        manifest: Versions, device, data, parents; empty if the run has none.
        rows: Metrics of the training, oldest first.
        evaluations: Its evaluations, oldest first.
        grids: Pictures drawn while training, oldest first.
        parameters: Number of the network's parameters, if known.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    overrides: tuple[str, ...]
    manifest: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    evaluations: tuple[StoredEvaluation, ...]
    grids: tuple[TrainingGrid, ...]
    parameters: int | None = None

    def last(self, key: str) -> float:
        """The last finite value of a training metric; nan if there is none."""
        values = (row.get(key) for row in reversed(self.rows))
        return next((float(v) for v in values if isinstance(v, int | float)), math.nan)

    @property
    def devices(self) -> str:
        """The devices of the first start."""
        return ", ".join(map(str, self.manifest.get("devices", []))) or "not known"


def read_run(path: Path, *, name: str, parameters: int | None = None) -> RunRecord:
    """Read a run directory.

    Raises:
        UsageError: It is not a run directory, or a file in it cannot be read.
    """
    run = RunDirectory.open(path, key="runs", checkpoint=False)
    return RunRecord(
        name=name,
        path=run.path,
        config=run.config(),
        overrides=tuple(run.overrides() if run.overrides_file.is_file() else ()),
        manifest=_manifest(run.manifest_file),
        rows=tuple(read_rows(run.metrics_file)),
        evaluations=read_evaluations(run.results_file),
        grids=_grids(run.samples),
        parameters=parameters,
    )


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Names of runs: as many of the last parts of each path as make them distinct.

    Raises:
        UsageError: A run is named twice.
    """
    parts = [path.resolve().parts for path in paths]
    if len(set(parts)) < len(parts):
        twice = next(path for path, own in zip(paths, parts, strict=True) if parts.count(own) > 1)
        raise UsageError(f"{twice} is named twice.", key="runs", remedy="Name each run once.")
    length = 1
    while len({own[-length:] for own in parts}) < len(parts):
        length += 1
    return ["/".join(own[-length:]) for own in parts]


def _manifest(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UsageError(f"{file} cannot be read: {error}", key="runs") from error
    return content if isinstance(content, dict) else {}


def _grids(folder: Path) -> tuple[TrainingGrid, ...]:
    """The grids of training; those of ``flowexp sample`` lie in folders of their own."""
    found = []
    for file in folder.glob("*.png"):
        number = re.search(r"\d+(\.\d+)?", file.stem)
        if number is not None:
            found.append(TrainingGrid(kimg=float(number.group()), path=file))
    return tuple(sorted(found, key=lambda grid: grid.kimg))
