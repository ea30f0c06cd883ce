"""The results of tables and claims: collected from finished jobs, as values that survive JSON."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from flowexp.errors import UsageError
from flowexp.files import json_number
from flowexp.runs.metrics_file import processor_seconds, read_rows, training_seconds
from flowexp.tables.claims import Verdict, verdict
from flowexp.tables.jobs import PlannedRow, Scoring, TableJob, all_jobs
from flowexp.tables.progress import state_of
from flowexp.tables.syntax import ClaimFile, TableFile
from flowexp.tree import mapped

if TYPE_CHECKING:
    from flowexp.metrics.protocol import MetricRecord

__all__ = ["ClaimResult", "Measurement", "RowResult", "TableResult", "claim_result", "table_result"]

_Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number that JSON may hold as null (nan) or as a word (infinity)."""


@dataclass(frozen=True, kw_only=True)
class _Stored:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins for JSON."""
        return dict(mapped(asdict(self), json_number))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The result that ``to_dict`` described; ValueError for any other mapping."""
        try:
            return TypeAdapter(cls).validate_python(dict(content))
        except ValidationError as error:
            found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise ValueError(f"not a {cls.__name__} ({'; '.join(found)})") from error


@dataclass(frozen=True, kw_only=True)
class Measurement(_Stored):
    """One measured cell: a number for each training seed, and what it was measured with.

    Attributes:
        values: One number per training seed, whose ``mean`` and ``minimum`` follow.
        spread: Their sample standard deviation (ddof 1); nan with one seed.
        title: Full protocol title, ``FD[EfficientNet-Lite0 b4, 64px] 2k on fashion10k``.
        protocol: Protocol of the first record, see :class:`flowexp.metrics.protocol.Protocol`.
        n_gen: Number of generated samples behind each value.
        nfe: Network evaluations per sample.
        seconds: Wall time of training and evaluation over all seeds.
        device: Device these seconds were spent on.
        floor: The score of held-out real data; None where it was not measured.
        notice: A caveat, or why a value is not a number; None if there is none.
        kimg: Thousands of images that the scored weights were trained on; None if unknown.
        training_seconds: Time of one training up to the scored weights, with that of all it
            started from, such as a teacher; mean over seeds. It is processor time, which other work
            on the machine does not change, if ``device`` is cpu, else wall time. None if
            unknown.
    """

    values: tuple[_Number, ...]
    mean: _Number
    spread: _Number
    minimum: _Number
    seeds: tuple[int, ...]
    title: str
    protocol: Mapping[str, Any]
    n_gen: int
    nfe: _Number
    seconds: _Number
    device: str
    floor: float | None
    notice: str | None
    kimg: float | None = None
    training_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class RowResult(_Stored):
    """A row of a table, or an arm of a claim, with its published and its measured number.

    Attributes:
        published_source: Place of the published number, for example ``Table 2, F``.
        verified: Whether the published number was checked against the publication; else recalled.
        measured: The measurement; None unless the status is ``done``.
        status: Whether its jobs are ``done``, ``missing`` (not run yet) or ``failed``.
        log: Log file of the job that failed.
        scaled: Whether a budget made the row smaller than published.
        mismatch: Readable differences between the published and the measured protocol.
        runs: Run directories behind the number.
        method: Name of its curve; None = the label without its number of evaluations.
        family: Methods of one family are drawn together; None = no family.
    """

    label: str
    published: float | None
    published_source: str | None
    published_nfe: float | None
    verified: bool
    measured: Measurement | None
    status: Literal["done", "missing", "failed"]
    log: str | None
    scaled: bool
    mismatch: tuple[str, ...]
    runs: tuple[str, ...] = ()
    method: str | None = None
    family: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableResult(_Stored):
    """A whole table, its rows in the order of the publication.

    Attributes:
        name: Name of the table's file, for example ``edm/table2``.
        metric: Name of the metric the publication reports, for example ``fid``.
        protocol: The published protocol as the table's file states it.
        budget: Name of the budget it was measured with.
        versions: Versions of the packages it was measured with.
    """

    name: str
    title: str
    source: str
    metric: str
    protocol: Mapping[str, Any]
    budget: str
    rows: tuple[RowResult, ...]
    hardware: str
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ClaimResult(_Stored):
    """The result of testing a published claim.

    Attributes:
        name: Name of the claim's file, for example ``rfpp/reflow_straightens``.
        title: The claimed effect, one sentence.
        published: The published figures, as text.
        arms: The last is claimed to be better than the others.
        verdict: The result of the test; ``missing`` while arms are.
        test: The test, in words.
        statistic: Its statistic; nan while arms are missing.
        p_value: Its p value in the claimed direction; nan while arms are missing.
        budget: Name of the budget it was measured with.
    """

    name: str
    title: str
    source: str
    published: str
    arms: tuple[RowResult, ...]
    direction: Literal["lower", "higher"]
    verdict: Literal["holds", "does not hold", "undecided", "missing"]
    test: str
    statistic: _Number
    p_value: _Number
    budget: str
    hardware: str


class _Score(NamedTuple):
    """The result of an evaluation job: its number, its NFE, and the record of a range of seeds.

    That is the first range, or the first without a number. ``kimg`` is that of the scored weights.
    """

    value: float
    nfe: float
    record: "MetricRecord"
    kimg: float | None


def table_result(
    table: TableFile, rows: Sequence[PlannedRow], *, scoring: Scoring, budget: str
) -> TableResult:
    """The table as far as it is measured."""
    found = tuple(_row(row, table, scoring, number=table.record) for row in rows)
    stated = table.model_dump(include={"name", "title", "source", "protocol"})
    return TableResult(
        **stated,
        metric=table.record or table.metric,
        budget=budget,
        rows=found,
        hardware=_hardware(rows),
        versions=_versions(rows),
    )


def claim_result(claim: ClaimFile, rows: Sequence[PlannedRow], *, budget: str) -> ClaimResult:
    """The claim with its verdict, as far as it is measured."""
    arms = tuple(_row(row, None, None, number=claim.record) for row in rows)
    measured = [arm.measured.values for arm in arms if arm.measured is not None]
    complete = rows and len(measured) == len(rows)
    found = verdict(measured, direction=claim.direction) if complete else Verdict()
    kept = {"name", "title", "source", "published", "direction", "test"}
    return ClaimResult(
        **claim.model_dump(include=kept),
        arms=arms,
        verdict=found.word,
        statistic=found.statistic,
        p_value=found.p_value,
        budget=budget,
        hardware=_hardware(rows),
    )


def _row(
    row: PlannedRow, table: TableFile | None, scoring: Scoring | None, *, number: str | None
) -> RowResult:
    spec, measured = row.spec, None
    mismatch: tuple[str, ...] = ()
    needed = (job for target in row.targets for job in target.ancestry())
    failed = [job for job in needed if state_of(job).status == "failed"]
    status: Literal["done", "missing", "failed"] = "failed" if failed else "missing"
    if all(job.is_done() for job in row.targets):
        protocol = {} if table is None else table.protocol
        minimum = protocol.get("reported") == "minimum"
        scores = [_score(job, number, minimum=minimum) for job in row.evaluations]
        measured = _measured(row, scores, number, minimum=minimum)
        status = "done"
        if table is not None and scoring is not None and spec.published is not None:
            mismatch = tuple(_mismatches(row, table, scoring, scores[0].record))
    return RowResult(
        label=spec.label,
        published=spec.published,
        published_source=spec.source,
        published_nfe=spec.nfe,
        verified=spec.verified,
        measured=measured,
        status=status,
        log=str(failed[0].log_file) if status == "failed" else None,
        scaled=row.scaled,
        mismatch=mismatch,
        runs=tuple(str(job.run.directory) for job in row.evaluations if job.run is not None),
        method=spec.method,
        family=spec.family,
    )


def _score(job: TableJob, number: str | None, *, minimum: bool) -> _Score:
    """The minimum over ranges of seeds where the publication reports minima, else the mean.

    ``number`` names the record that counts, up to what follows it for another extractor
    (``recall``, ``recall_efflite0``); None = the metric's first.
    """
    from flowexp.metrics.protocol import MetricRecord, least, mean

    file = job.directory / "results.json"
    content = json.loads(file.read_text(encoding="utf-8"))["evaluations"]
    stored = [[MetricRecord.from_dict(r) for r in e["records"]] for e in content]
    records = [_that_counts(of_range, number) for of_range in stored]
    values = [record.value for record in records]
    nfe = statistics.fmean(float(e["nfe"]) for e in content)
    shown = next((record for record in records if record.reason), records[0])
    kimg = (content[0].get("checkpoint") or {}).get("kimg")
    return _Score(least(values) if minimum else mean(values), nfe, shown, kimg)


def _that_counts(records: Sequence["MetricRecord"], number: str | None) -> "MetricRecord":
    for record in records:
        if number is None or record.name == number or record.name.startswith(f"{number}_"):
            return record
    raise UsageError(
        f"the metric gives no {number!r}, only {', '.join(r.name for r in records)}.",
        key="record",
        remedy="Name one of these in the table's file, or leave record out for the first.",
    )


def _measured(
    row: PlannedRow, scores: Sequence[_Score], number: str | None, *, minimum: bool
) -> Measurement:
    from flowexp.metrics.protocol import least, mean, spread_of

    values = [score.value for score in scores]
    first = scores[0].record
    title, floor = first.title, first.extra.get("floor")
    device = first.protocol.device or ""
    if row.baselines:
        bases = [_score(job, number, minimum=minimum).value for job in row.baselines]
        values = [a / b if b else math.nan for a, b in zip(values, bases, strict=True)]
        base = ", ".join(row.spec.relative_to or ()) or "the sampler as it is"
        title, floor = f"{title}, relative to {base}", None
    return Measurement(
        values=tuple(values),
        mean=mean(values),
        spread=spread_of(values),
        minimum=least(values),
        seeds=row.seeds,
        title=title,
        protocol=first.to_dict()["protocol"],
        n_gen=first.protocol.n_gen,
        nfe=statistics.fmean(score.nfe for score in scores),
        seconds=sum(marker.get("seconds", 0.0) for marker in _markers([row])),
        device=device,
        floor=floor,
        notice=_caveat(scores),
        kimg=scores[0].kimg,
        training_seconds=_training_seconds(row, kimg=scores[0].kimg, device=device),
    )


def _training_seconds(row: PlannedRow, *, kimg: float | None, device: str) -> float | None:
    """See :class:`Measurement`; of other jobs, such as pair sets, the whole wall time counts."""
    spent = []
    time_of = processor_seconds if device == "cpu" else training_seconds
    for job in row.evaluations:
        if job.run is None or kimg is None:
            return None
        record = read_rows(job.run.directory / "metrics.jsonl")
        before = [one for one in record if one.get("kimg", math.inf) <= kimg]
        if not before:
            return None
        seconds = time_of(before) * kimg / before[-1]["kimg"]
        for one in job.run.ancestry()[:-1]:
            other = time_of(read_rows(one.directory / "metrics.jsonl"))
            if not other and not one.is_done():
                return None
            seconds += other or _marker(one).get("seconds", 0.0)
        spent.append(seconds)
    return statistics.fmean(spent)


def _caveat(scores: Sequence[_Score]) -> str | None:
    """The caveat of the first evaluation, and why a value is not a number."""
    reasons = dict.fromkeys(f"not a number: {s.record.reason}" for s in scores if s.record.reason)
    return "; ".join(filter(None, (scores[0].record.protocol.notice, *reasons))) or None


def _mismatches(
    row: PlannedRow, table: TableFile, scoring: Scoring, record: "MetricRecord"
) -> list[str]:
    """Differences of the measurement from the published protocol, one phrase each."""
    published = replace(record.protocol, **_stated(row, table, record))
    found = published.differences(record.protocol)
    wanted = table.record or table.metric
    if record.name != wanted:
        found.insert(0, f"metric: {wanted} and {record.name}")
    repetitions = table.protocol.get("repetitions")
    if repetitions not in (None, scoring.repeats):
        reported = table.protocol.get("reported") or "value"
        found.append(f"repetitions: {reported} of {repetitions} and {scoring.repeats}")
    return found


def _stated(row: PlannedRow, table: TableFile, record: "MetricRecord") -> dict[str, Any]:
    """Fields of the protocol that the table states; others cannot differ."""
    from flowexp.metrics.protocol import (
        CLEAN_RESIZE,
        INCEPTION_NAME,
        INCEPTION_RESIZE,
        TORCH_RESIZE,
    )

    resizes = {
        "fid": INCEPTION_RESIZE,
        "fid_clean": CLEAN_RESIZE,
        "fid_legacy_pytorch": TORCH_RESIZE,
    }
    protocol, stated = table.protocol, {}
    if table.metric in resizes:
        resize = resizes[table.metric]
        stated = {"metric": "FD", "extractor": INCEPTION_NAME, "resize": resize}
    if protocol.get("num_samples") is not None:
        stated["n_gen"] = protocol["num_samples"]
    if protocol.get("reference") == "training set":
        stated["reference_split"] = "train"
    elif protocol.get("reference") is not None:
        stated["reference"] = protocol["reference"]
    own = [text.partition("=")[2] for text in row.spec.eval if text.startswith("selection=")]
    # A row that selects its weights reproduces a publication that does so.
    selected = own[-1] if own else protocol.get("selection")
    if selected == "best_of_snapshots" and not record.protocol.selection.startswith("best of"):
        stated["selection"] = "best of snapshots"
    elif selected == "last":
        stated["selection"] = selected
    run = row.evaluations[0].run
    if run is not None and run.choices.get("dataset") != row.dataset:
        stated["reference"] = row.dataset
    weights = protocol.get("weights")
    # A row may be about what an evaluation does to the weights.
    if weights is not None and (record.protocol.ema or "").partition(",")[0] != weights:
        stated["ema"] = weights
    return stated


def _markers(rows: Sequence[PlannedRow]) -> list[dict[str, Any]]:
    """The contents of the finished jobs' markers."""
    return [_marker(job) for job in all_jobs(rows) if job.is_done()]


def _marker(job: TableJob) -> dict[str, Any]:
    return dict(json.loads(job.done_file.read_text(encoding="utf-8")))


def _hardware(rows: Sequence[PlannedRow]) -> str:
    return "; ".join(dict.fromkeys(str(marker["hardware"]) for marker in _markers(rows)))


def _versions(rows: Sequence[PlannedRow]) -> dict[str, str]:
    """Package versions of the finished jobs; several of one package are all listed."""
    found: dict[str, dict[str, None]] = {}
    for marker in _markers(rows):
        for package, version in marker.get("versions", {}).items():
            found.setdefault(package, {})[version] = None
    return {package: ", ".join(versions) for package, versions in found.items()}
