"""Runs side by side: differences of their configs, scores over training seeds, costs."""

from collections.abc import Mapping, Sequence

from flowexp.report.run_record import (
    LAST_LOSS,
    RunRecord,
    losses_differ_in,
    training_facts,
)
from flowexp.report.score_sheets import score_sheets
from flowexp.report.seed_groups import ABSENT, SEED, SeedGroup, config_differences, seed_groups
from flowexp.report.tidy import tidy_rows
from flowexp.tables.render.sheet import Column, Line, Sheet

__all__ = ["compare"]

_MOST_COLUMNS = 78
_SHOWN_VALUES = 8
_SCORED = "scored"


def compare(runs: Sequence[RunRecord]) -> list[Sheet]:
    """Sheets of differing config values, comparable scores, and runs with their costs.

    Runs that differ only in their training seed share a line of scores. The records, which make the
    CSV file, are those of :func:`flowexp.report.tidy.tidy_rows`.
    """
    groups = seed_groups(runs)
    return [_config_sheet(runs), *score_sheets(groups), _runs_sheet(groups)]


def _config_sheet(runs: Sequence[RunRecord]) -> Sheet:
    found = config_differences([run.config for run in runs])
    titles = ("key", *(run.name for run in runs))
    rows = [(key, *own) for key, own in found.items()]
    if not _fits([titles, *rows]):
        titles = ("key", "value: runs")
        rows = [(key, _by_value(own, runs)) for key, own in found.items()]
    return Sheet(
        name="config",
        title="Configuration",
        intro=("Only keys that differ.",) if found else ("The configurations are the same.",),
        columns=tuple(Column(title=title) for title in titles),
        lines=tuple(Line(cells=row) for row in rows),
    )


def _fits(rows: Sequence[Sequence[str]]) -> bool:
    widths = (max(map(len, column)) + 3 for column in zip(*rows, strict=True))
    return sum(widths) <= _MOST_COLUMNS


def _by_value(values: Sequence[str], runs: Sequence[RunRecord]) -> str:
    """``64: 0, 2; inf: 1, 3``; many values are abbreviated, without the runs."""
    names: dict[str, list[str]] = {}
    for value, run in zip(values, runs, strict=True):
        names.setdefault(value, []).append(run.name)
    if len(names) > _SHOWN_VALUES:
        return ", ".join([*list(names)[:_SHOWN_VALUES], f"... ({len(names)} values)"])
    return "; ".join(f"{value}: {', '.join(own)}" for value, own in names.items())


def _runs_sheet(groups: Sequence[SeedGroup]) -> Sheet:
    """A line per run: its differing values, its training, whether it is scored."""
    pairs = [(group, run) for group in groups for run in group.runs]
    runs = [run for _, run in pairs]
    facts = [_facts(run) for run in runs]
    keys = dict.fromkeys(key for own in facts for key in own)
    if losses_differ_in(runs):
        keys.pop(LAST_LOSS, None)
    shared, varying = _split(facts, list(keys))
    titles = ["run", *varying]
    rows = [
        [run.name, *(own.get(key, ABSENT) for key in varying)]
        for run, own in zip(runs, facts, strict=True)
    ]
    if any(group.name for group in groups):
        titles.insert(1, "differs in")
        for row, (group, _) in zip(rows, pairs, strict=True):
            row.insert(1, group.name)
    return Sheet(
        name="training",
        title="Runs",
        intro=(f"The same in all runs: {shared}.",) if shared else (),
        columns=tuple(Column(title=title) for title in titles),
        lines=tuple(
            Line(cells=tuple(row), starts_group=run is group.runs[0] and len(group.runs) > 1)
            for row, (group, run) in zip(rows, pairs, strict=True)
        ),
        records=tuple(tidy_rows(runs)),
    )


def _facts(run: RunRecord) -> dict[str, str]:
    facts = training_facts(run)
    if run.divergence is not None:
        facts["trained"] = f"diverged at {facts['trained']}"
    return {SEED: facts.pop(SEED), **facts, _SCORED: "yes" if run.evaluations else "not scored"}


def _split(facts: Sequence[Mapping[str, str]], keys: Sequence[str]) -> tuple[str, list[str]]:
    """The facts that all runs share, in words, and the keys of the others."""
    shared = [key for key in keys if len({own.get(key) for own in facts}) == 1]
    words = ", ".join(f"{key} {facts[0][key]}" for key in shared if key != _SCORED)
    return words, [key for key in keys if key not in shared]
