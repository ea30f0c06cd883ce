"""Runs side by side: differences of their configs, costs and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flowexp.report.run_record import (
    LAST_LOSS,
    RunRecord,
    StoredEvaluation,
    losses_differ_in,
    score_text,
    training_facts,
)
from flowexp.tables.render.sheet import Column, Line, Notes, Sheet
from flowexp.tree import leaves, without

__all__ = ["compare", "config_differences"]

_PLACES = ("dirs", "launcher")  # groups that do not change what a run computes
_ABSENT = "-"


def compare(runs: Sequence[RunRecord]) -> list[Sheet]:
    """Sheets of differing config values, comparable scores, and costs."""
    return [_config_sheet(runs), _scores_sheet(runs), _training_sheet(runs)]


def config_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Dotted keys whose values differ, each with its text in every config."""
    flat = [dict(leaves(without(config, _PLACES))) for config in configs]
    keys = dict.fromkeys(key for own in flat for key in own)
    texts = {key: [_text(own.get(key, _ABSENT)) for own in flat] for key in keys}
    return {key: own for key, own in texts.items() if len(set(own)) > 1}


def _text(value: Any) -> str:  # noqa: ANN401 -- any value of a config
    return "null" if value is None else str(value)


def _columns(first: str, runs: Sequence[RunRecord], *, scores: bool = False) -> tuple[Column, ...]:
    return (Column(title=first), *(Column(title=run.name, numeric=scores) for run in runs))


def _record(section: str, key: str, runs: Sequence[RunRecord], cells: Sequence[Any]) -> Any:  # noqa: ANN401
    own = {run.name: cell for run, cell in zip(runs, cells, strict=True)}
    return {"section": section, "key": key, **own}


def _config_sheet(runs: Sequence[RunRecord]) -> Sheet:
    found = config_differences([run.config for run in runs])
    return Sheet(
        name="config",
        title="Configuration",
        intro=("Only keys that differ.",) if found else ("The configurations are the same.",),
        columns=_columns("key", runs),
        lines=tuple(Line(cells=(key, *own)) for key, own in found.items()),
        records=tuple(_record("config", key, runs, own) for key, own in found.items()),
    )


def _training_sheet(runs: Sequence[RunRecord]) -> Sheet:
    facts = [training_facts(run) for run in runs]
    keys = dict.fromkeys(key for own in facts for key in own)
    if losses_differ_in(runs):
        keys.pop(LAST_LOSS, None)
    rows = [(key, [own.get(key, _ABSENT) for own in facts]) for key in keys]
    return Sheet(
        name="training",
        title="Training",
        columns=_columns("fact", runs),
        lines=tuple(Line(cells=(key, *cells)) for key, cells in rows),
        records=tuple(_record("training", key, runs, cells) for key, cells in rows),
    )


def _scores_sheet(runs: Sequence[RunRecord]) -> Sheet:
    """Two numbers share a line only if they can be compared."""
    notes, lines, records = Notes(), [], []
    groups = _groups(runs)
    for number, group in enumerate(groups):
        for title, evaluations in _by_sampler(group):
            own = [evaluations.get(run.name) for run in runs]
            cells = [_ABSENT if one is None else score_text(one) for one in own]
            texts = _unlike_others(groups[:number], group) + _circumstances(evaluations)
            texts += [f"{run}: {why}" for run, one in evaluations.items() for why in one.reasons]
            lines.append(Line(cells=(title, *cells, notes.refer(texts))))
            for part in ("mean", "spread"):
                values = [None if one is None else getattr(one, part) for one in own]
                records.append(_record("scores", f"{title}, {part}", runs, values))
    columns = _columns("metric", runs, scores=True)
    if notes.texts:
        columns += (Column(title="notes"),)
    else:
        lines = [replace(line, cells=line.cells[:-1]) for line in lines]
    return Sheet(
        name="scores",
        title="Scores",
        intro=("The latest evaluation of each run under each protocol and sampler.",)
        if lines
        else ("No run has been evaluated.",),
        columns=columns,
        lines=tuple(lines),
        notes=notes.texts,
        records=tuple(records),
    )


def _groups(runs: Sequence[RunRecord]) -> list[list[tuple[str, StoredEvaluation]]]:
    """Evaluations with the names of their runs, those of one metric and protocol together."""
    groups: list[list[tuple[str, StoredEvaluation]]] = []
    for name, one in ((run.name, one) for run in runs for one in run.evaluations):
        for group in groups:
            first = group[0][1]
            if first.name == one.name and not first.protocol.differences(one.protocol):
                group.append((name, one))
                break
        else:
            groups.append([(name, one)])
    return groups


def _by_sampler(
    group: Sequence[tuple[str, StoredEvaluation]],
) -> list[tuple[str, dict[str, StoredEvaluation]]]:
    """Title and evaluations, by run, of a line for each sampler that runs share, and for others."""
    samplers: dict[str | None, dict[str, StoredEvaluation]] = {}
    for name, evaluation in group:
        samplers.setdefault(evaluation.protocol.sampler, {})[name] = evaluation
    title = group[0][1].title
    lines = [(f"{title}, {sampler}", own) for sampler, own in samplers.items() if len(own) > 1]
    alone = {name: one for own in samplers.values() if len(own) == 1 for name, one in own.items()}
    return [*lines, (title, alone)] if alone else lines


def _unlike_others(
    earlier: Sequence[Sequence[tuple[str, StoredEvaluation]]],
    group: Sequence[tuple[str, StoredEvaluation]],
) -> list[str]:
    """Why a number has another line than those of the same metric."""
    one = group[0][1]
    others = [other for (_, other), *_ in earlier if other.name == one.name]
    return [
        f"not comparable with {other.title}: " + "; ".join(other.protocol.differences(one.protocol))
        for other in others
    ]


def _circumstances(group: Mapping[str, StoredEvaluation]) -> list[str]:
    """Differences between comparable numbers: usually the subject of the comparison."""
    protocols = {name: one.protocol for name, one in group.items()}
    first = next(iter(protocols.values()))
    parts = {
        text.partition(":")[0]
        for other in protocols.values()
        for text in first.differences(other, strict=True)
    }
    return [
        f"{part}: " + ", ".join(f"{name} {getattr(own, part)}" for name, own in protocols.items())
        for part in sorted(parts)
    ]
