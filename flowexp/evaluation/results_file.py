"""The file ``results.json`` of a run: the scores of its evaluations with their protocols."""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowexp.errors import UsageError
from flowexp.evaluation.score import ScoreResult
from flowexp.files import write_json
from flowexp.locks import locked
from flowexp.metrics.protocol import MetricRecord

__all__ = ["append_results", "stored_results", "together"]

_COSTS = ("count", "nfe", "seconds", "images_per_second")


def append_results(
    path: Path,
    result: ScoreResult,
    *,
    measured_with: Mapping[str, str] | None = None,
    **facts: Any,  # noqa: ANN401
) -> Path:
    """Add an evaluation to ``results.json``; earlier and concurrent evaluations are kept.

    Args:
        path: The file.
        result: The scores and their costs.
        measured_with: The digest of each metric, by which :func:`stored_results` finds its scores.
        facts: Plain builtins to put beside it, for example checkpoint, sha256, overrides.

    Raises:
        UsageError: The file is there, but holds something else.
    """
    entry = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **facts,
        **{name: getattr(result, name) for name in _COSTS},
        **({"sampler_facts": dict(result.facts)} if result.facts else {}),
        "records": [{"key": record.key, **record.to_dict()} for record in result.records],
    }
    for name, record in zip(result.metrics, entry["records"], strict=False):
        if measured_with and name in measured_with:
            record["measured_with"] = measured_with[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(".results.lock")):
        return write_json(path, {"evaluations": [*_history(path), entry]})


def stored_results(path: Path, measured_with: Mapping[str, str]) -> dict[str, ScoreResult]:
    """The latest scores of each metric in ``results.json``; metrics without scores are left out.

    Args:
        path: The file.
        measured_with: The digest of each metric, as passed to :func:`append_results`.

    Raises:
        UsageError: The file is there, but holds something else.
    """
    known: dict[str, ScoreResult] = {}
    for entry in _history(path):
        for metric, digest in measured_with.items():
            found = [r for r in entry["records"] if r.get("measured_with") == digest]
            if found:
                known[metric] = ScoreResult(
                    records=tuple(map(MetricRecord.from_dict, found)),
                    metrics=(metric,) * len(found),
                    **{key: entry[key] for key in _COSTS},
                    facts=entry.get("sampler_facts", {}),
                )
    return known


def together(results: Sequence[ScoreResult], *, order: Sequence[str]) -> ScoreResult:
    """Joins several results on the same seeds, in the order of their metrics.

    Count and cost are those of the last one, at least one.
    """
    pairs = [pair for one in results for pair in zip(one.metrics, one.records, strict=False)]
    pairs.sort(key=lambda pair: order.index(pair[0]))
    records, metrics = tuple(r for _, r in pairs), tuple(name for name, _ in pairs)
    words = dict.fromkeys(text for one in results for text in one.words)
    return replace(results[-1], records=records, metrics=metrics, words=tuple(words))


def _history(path: Path) -> list[Any]:
    """The evaluations stored so far."""
    if not path.exists():
        return []
    try:
        return [*json.loads(path.read_text(encoding="utf-8"))["evaluations"]]
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{path} holds no results."
        raise UsageError(problem, key="run", remedy="Move the file away.") from error
