"""Runs as rows of a table that pandas reads: ``pandas.read_csv("runs.csv")``."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from flowexp.metrics.protocol import Protocol
from flowexp.report.run_record import RunRecord, StoredEvaluation
from flowexp.report.seed_groups import SEED, config_differences

__all__ = ["tidy_rows"]


def tidy_rows(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """One row per run and evaluation; an unscored run has one row without a value.

    Its columns are

    - ``run`` and ``directory``;
    - ``seed``, and every other config key in which the runs differ;
    - ``status``: ``scored``, ``diverged`` or ``not scored``; ``trained_kimg``;
    - ``name`` of the metric, ``value``, its ``spread`` (sample standard deviation) over ``ranges``
      of sample seeds, the ``reason`` of a nan, ``floor``, and the ``kimg`` of the scored weights;
    - one per part of the protocol, such as ``extractor``, ``n_gen``, ``seeds`` and ``sampler``;
    - ``created``.

    If a run was evaluated several times in the same way, the latest evaluation counts.
    """
    differing = config_differences([run.config for run in runs])
    differing.pop(SEED, None)
    rows = []
    for index, run in enumerate(runs):
        kimg = run.last("kimg")
        common = {
            "run": run.name,
            "directory": str(run.path),
            SEED: run.config.get(SEED),
            **{key: values[index] for key, values in differing.items()},
        }
        evaluations: list[StoredEvaluation | None] = [*_latest(run)]
        for one in evaluations or [None]:
            scored = "not scored" if one is None else "scored"
            status = "diverged" if run.divergence is not None else scored
            rows.append({**common, "status": status, "trained_kimg": kimg, **_measured(one)})
    return rows


def _latest(run: RunRecord) -> list[StoredEvaluation]:
    found: dict[tuple[Any, ...], StoredEvaluation] = {}
    for one in run.evaluations:
        protocol = {**asdict(one.protocol), "nfe": None, "device": None, "notice": None}
        found[one.name, _seeds(one), *protocol.values()] = one
    return list(found.values())


def _seeds(one: StoredEvaluation) -> str:
    return ",".join(record.protocol.seeds or "" for record in one.records)


def _measured(one: StoredEvaluation | None) -> dict[str, Any]:
    names = [field.name for field in fields(Protocol)]
    if one is None:
        own = ("name", "value", "spread", "ranges", "reason", "floor", "kimg", *names, "created")
        return dict.fromkeys(own)
    return {
        "name": one.name,
        "value": one.mean,
        "spread": one.spread,
        "ranges": len(one.values),
        "reason": "; ".join(one.reasons) or None,
        "floor": one.floor,
        "kimg": one.checkpoint.get("kimg"),
        **asdict(one.protocol),
        "seeds": _seeds(one),
        "created": one.created,
    }
