"""The content of a run directory, read once."""

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowexp.errors import UsageError
from flowexp.metrics.protocol import MetricRecord, Protocol, mean, spread_of
from flowexp.runs import RunDirectory
from flowexp.runs.metrics_file import read_rows, training_seconds
from flowexp.tables.render.cells import mean_text, number_text

__all__ = [
    "RunRecord",
    "StoredEvaluation",
    "TrainingGrid",
    "distinct_names",
    "read_run",
    "LAST_LOSS",
    "choice_facts",
    "commands",
    "losses_differ_in",
    "manifest_facts",
    "score_text",
    "training_facts",
]


_Found = list[tuple[Mapping[str, Any], MetricRecord]]
_DIVERGED = re.compile(r"\bNonFinite(?:Loss|Weights)Error: (.+)")
_LOG_TAIL = 100_000


@dataclass(frozen=True, kw_only=True)
class StoredEvaluation:
    """One metric of one ``flowexp eval``; the seed ranges of one command are one evaluation.

    Attributes:
        records: One per range of seeds, at least one.
        created: When, in ISO 8601.
        overrides: Overrides of the command line.
        directory: Output directory of the evaluation at that time.
        checkpoint: ``kimg``, ``sha256`` and ``path`` of the checkpoint.
        seconds: Wall time over all ranges, of all metrics together.
    """

    records: tuple[MetricRecord, ...]
    created: str
    overrides: tuple[str, ...]
    directory: str
    checkpoint: Mapping[str, Any]
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
        return mean(self.values)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why values are nan, each reason once."""
        return tuple(dict.fromkeys(r.reason for r in self.records if r.reason))

    @property
    def spread(self) -> float:
        """Standard deviation over the ranges; nan for one."""
        return spread_of(self.values)

    @property
    def kimg(self) -> float | None:
        """Thousands of images that the scored weights were trained on, if known."""
        return self.checkpoint.get("kimg") or None

    @property
    def weights_in_words(self) -> str:
        """The scored weights in words: ``main at 64 kimg``."""
        at = "" if self.kimg is None else f" at {self.kimg:g} kimg"
        return (self.protocol.ema or "not stated") + at

    @property
    def floor(self) -> float | None:
        """The score of held-out real data, if it was measured."""
        return self.records[0].extra.get("floor")


@dataclass(frozen=True, kw_only=True)
class TrainingGrid:
    """The file of a grid of samples drawn while training, after ``kimg`` thousand images."""

    kimg: float
    path: Path


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run.

    Attributes:
        name: Its name here, see :func:`distinct_names`.
        config: Its resolved configuration.
        overrides: Overrides of the command line.
        manifest: Versions, device, data, parents; empty if the run has none.
        rows: Metrics of the training, oldest first.
        evaluations: Its evaluations, oldest first.
        grids: Grids of samples drawn while training, oldest first.
        parameters: Number of the network's parameters, if known.
        divergence: Why the training could not be finished, if losses or weights became not finite.
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
    divergence: str | None = None

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
    config, rows = run.config(), tuple(read_rows(run.metrics_file))
    return RunRecord(
        name=name,
        path=run.path,
        config=config,
        overrides=tuple(run.overrides() if run.overrides_file.is_file() else ()),
        manifest=_manifest(run.manifest_file),
        rows=rows,
        evaluations=_evaluations(run.results_file),
        grids=_grids(run.samples),
        parameters=parameters,
        divergence=_divergence(run.log_file, wanted=config.get("trainer"), rows=rows),
    )


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Names of runs: as many of the last parts of each path as make them distinct.

    A run that is named twice raises ``UsageError``.
    """
    parts = [path.resolve().parts for path in paths]
    if len(set(parts)) < len(parts):
        twice = next(path for path, own in zip(paths, parts, strict=True) if parts.count(own) > 1)
        raise UsageError(f"{twice} is named twice.", key="runs", remedy="Name each run once.")
    length = 1
    while len({own[-length:] for own in parts}) < len(parts):
        length += 1
    return ["/".join(own[-length:]) for own in parts]


def _divergence(
    log: Path, *, wanted: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]
) -> str | None:
    """The message in the log of a training that diverged before its end."""
    kimg = rows[-1].get("kimg") if rows else None
    length = (wanted or {}).get("max_kimg")
    finished = isinstance(kimg, int | float) and isinstance(length, int | float) and kimg >= length
    if finished or not log.is_file():
        return None
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL))
        said = _DIVERGED.findall(file.read().decode("utf-8", errors="replace"))
    return str(said[-1]) if said else None


def _manifest(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UsageError(f"{file} cannot be read: {error}", key="runs") from error
    return content if isinstance(content, dict) else {}


def _grids(folder: Path) -> tuple[TrainingGrid, ...]:
    """The grids of training; those of ``flowexp sample`` lie in folders of their own."""
    numbers = ((file, re.search(r"\d+(\.\d+)?", file.stem)) for file in folder.glob("[!.]*.png"))
    found = [TrainingGrid(kimg=float(n.group()), path=file) for file, n in numbers if n]
    return tuple(sorted(found, key=lambda grid: grid.kimg))


def _evaluations(file: Path) -> tuple[StoredEvaluation, ...]:
    """The evaluations in ``results.json``, oldest first; empty if there is no such file."""
    if not file.is_file():
        return ()
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["evaluations"]
        commands: list[_Found] = []
        latest: dict[tuple[str, str], _Found] = {}
        for number, entry in enumerate(entries):
            directory = str(entry.get("directory", f"evaluation {number}"))
            for stored in entry["records"]:
                record = MetricRecord.from_dict(stored)
                found = latest.get((directory, record.key))
                if found is None or not _continues(found, entry, record):
                    found = latest[directory, record.key] = []
                    commands.append(found)
                found.append((entry, record))
        return tuple(map(_evaluation, commands))
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"cannot read the results in {file} ({error}).", key="runs") from error


def _continues(found: _Found, entry: Mapping[str, Any], record: MetricRecord) -> bool:
    """Whether a score belongs to another range of seeds instead of a later evaluation."""
    before, first = found[0]
    same = before.get("checkpoint") == entry.get("checkpoint")
    fresh = record.protocol.seeds not in [other.protocol.seeds for _, other in found]
    return same and fresh and not first.protocol.differences(record.protocol)


def _evaluation(found: _Found) -> StoredEvaluation:
    entries, first = [entry for entry, _ in found], found[0][0]
    return StoredEvaluation(
        records=tuple(record for _, record in found),
        created=str(first.get("created", "")),
        overrides=tuple(first.get("overrides", ())),
        directory=str(first.get("directory", "")),
        checkpoint=dict(first.get("checkpoint", {})),
        seconds=sum(float(entry.get("seconds", 0.0)) for entry in entries),
    )


LAST_LOSS = "last loss"
_CHOICES = ("experiment", "dataset", "path", "coupling", "timestep", "network", "parameterization",
            "objective", "sampler", "guidance", "task")  # fmt: skip
_MAKES_THE_LOSS = ("dataset", "path", "timestep", "parameterization", "objective")
_NOT_CHOSEN = ("None", "none", "null")


def choice_facts(run: RunRecord) -> dict[str, str]:
    """The chosen option of every group that makes the method."""
    choices = run.manifest.get("choices", {})
    chosen = {group: str(choices[group]) for group in _CHOICES if group in choices}
    return {group: option for group, option in chosen.items() if option not in _NOT_CHOSEN}


def training_facts(run: RunRecord) -> dict[str, str]:
    """Progress and cost of the training, as far as known."""
    wanted = (run.config.get("trainer") or {}).get("max_kimg")
    kimg, seconds = run.last("kimg"), training_seconds(run.rows) or math.nan
    facts = {"trained": "not yet" if math.isnan(kimg) else f"{kimg:g} of {wanted or '?'} kimg"}
    if not math.isnan(seconds):
        facts["seconds"] = f"{seconds:,.0f}"
    if seconds > 0 and kimg > 0:
        facts["images/s"] = f"{1000 * kimg / seconds:,.0f}"
    if not math.isnan(run.last("train/loss")):
        facts[LAST_LOSS] = number_text(run.last("train/loss"))
    if run.parameters is not None:
        facts["parameters"] = f"{run.parameters:,}"
    facts["device"] = run.devices
    facts["seed"] = str(run.config.get("seed", "not known"))
    facts["code"] = _revision(run.manifest)
    return facts


def losses_differ_in(runs: Sequence[RunRecord]) -> list[str]:
    """The groups that make the losses of runs different quantities; empty if they are the same."""
    return [
        group
        for group in _MAKES_THE_LOSS
        if any(run.config.get(group) != runs[0].config.get(group) for run in runs)
    ]


def manifest_facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Versions, hardware, data and parents."""
    if not manifest:
        return {"manifest": "none was written"}
    packages = manifest.get("packages", {})
    facts = {
        "created": str(manifest.get("created", "not known")),
        "code": _revision(manifest),
        "python": str(manifest.get("python", "not known")),
        "platform": str(manifest.get("platform", "not known")),
        "devices": ", ".join(map(str, manifest.get("devices", []))) or "not known",
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "data": str(manifest.get("dataset_fingerprint") or "not known"),
    }
    parents = manifest.get("parents") or []
    named = parents.items() if isinstance(parents, Mapping) else enumerate(parents, start=1)
    for name, entry in named:
        stated = entry.items() if isinstance(entry, Mapping) else [("", entry)]
        facts[f"parent {name}"] = ", ".join(f"{key} {value}".strip() for key, value in stated)
    return facts if parents else {**facts, "parents": "none"}


def score_text(evaluation: StoredEvaluation) -> str:
    """The value; over several ranges of seeds its mean and spread."""
    count = len(evaluation.values)
    if count == 1:
        return number_text(evaluation.mean)
    return mean_text(evaluation.mean, spread=evaluation.spread, count=count, of="seed range")


def commands(run: RunRecord) -> list[str]:
    """The command lines that make the run and its evaluations again."""
    given = [str(part) for part in run.manifest.get("command", [])]
    verb = given[1] if len(given) > 1 and given[1].isalpha() else "train"
    made = shlex.join(["flowexp", verb, *_outside_folder(given), *run.overrides])
    evals = [["flowexp", "eval", *one.overrides] for one in run.evaluations if one.overrides]
    return list(dict.fromkeys([made, *map(shlex.join, evals)]))


def _outside_folder(command: Sequence[str]) -> list[str]:
    """The folder of further groups that a command line names."""
    for option in ("--config-dir", "-cd"):
        if option in command[:-1]:
            return ["--config-dir", command[command.index(option) + 1]]
    return []


def _revision(manifest: Mapping[str, Any]) -> str:
    code = manifest.get("code") or {}
    dirty = " with uncommitted changes" if code.get("dirty") else ""
    return str(code["commit"])[:12] + dirty if code.get("commit") else "not known"
