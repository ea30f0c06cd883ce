"""Scores of runs, one sheet per protocol; the scores in a sheet can be compared.

A line holds scores with one sampler, on the same sample seeds and at the same kimg, and averages
only over training seeds.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flowexp.metrics.protocol import mean, spread_of
from flowexp.report.run_record import RunRecord, StoredEvaluation, score_text
from flowexp.report.seed_groups import ABSENT, SeedGroup
from flowexp.tables.render.cells import count_text, mean_text
from flowexp.tables.render.sheet import Column, Line, Notes, Sheet

__all__ = ["score_sheets"]

NOT_SCORED = "not scored"
_OVER_SEEDS = "Mean ± sample standard deviation over n training seeds."
_WAYS = ("sampler", "seeds", "kimg")


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How scores of one protocol were measured; those measured in one way can be averaged."""

    sampler: str
    seeds: str
    kimg: str


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """The scores of a group, measured in one way, by the names of its runs."""

    group: SeedGroup
    way: _Way
    scores: Mapping[str, StoredEvaluation]

    @property
    def value(self) -> str:
        """The mean over the runs with finite scores, or the score of the only run."""
        finite = [one.mean for one in self.scores.values() if math.isfinite(one.mean)]
        if not finite:
            return "not finite"
        if len(finite) == 1:
            (only,) = (one for one in self.scores.values() if math.isfinite(one.mean))
            return score_text(only)
        text = mean_text(mean(finite), spread=spread_of(finite), count=len(finite))
        return text.partition(" (")[0]

    @property
    def count(self) -> str:
        """The number of runs that the value averages."""
        return str(sum(math.isfinite(one.mean) for one in self.scores.values()))

    @property
    def nfe(self) -> str:
        """The mean number of network evaluations."""
        stated = [one.protocol.nfe for one in self.scores.values() if one.protocol.nfe is not None]
        return count_text(mean(stated)) if stated else ABSENT

    def remarks(self) -> Iterator[str]:
        """Remarks on runs of the group without a score, and on scores that are not finite."""
        for run in self.group.runs:
            if run.name not in self.scores:
                yield f"{run.name}: {'no such number' if run.evaluations else NOT_SCORED}"
        for name, one in self.scores.items():
            if not math.isfinite(one.mean):
                reason = "; ".join(one.reasons) or "not finite"
                yield f"{name}: {reason}" + (", left out of the mean" if self.count != "0" else "")


def score_sheets(groups: Sequence[SeedGroup]) -> list[Sheet]:
    """One sheet per metric and protocol; the latest evaluation of each run in each way counts."""
    runs = [run for group in groups for run in group.runs]
    protocols = _protocols(runs)
    if not protocols:
        empty = ("No run has been evaluated.",)
        column = (Column(title="value"),)
        return [Sheet(name="scores", title="Scores", intro=empty, columns=column, lines=())]
    sheets: list[Sheet] = []
    for number, own in enumerate(protocols):
        names = [group.title for group in groups if not any(run.evaluations for run in group.runs)]
        sheets.append(_sheet(groups, own, earlier=protocols[:number], unscored=names))
    return sheets


def _protocols(runs: Sequence[RunRecord]) -> list[list[tuple[str, StoredEvaluation]]]:
    """Evaluations with the names of their runs, those of one metric and protocol together."""
    found: list[list[tuple[str, StoredEvaluation]]] = []
    for name, one in ((run.name, one) for run in runs for one in run.evaluations):
        for own in found:
            first = own[0][1]
            if first.name == one.name and not first.protocol.differences(one.protocol):
                own.append((name, one))
                break
        else:
            found.append([(name, one)])
    return found


def _sheet(
    groups: Sequence[SeedGroup],
    own: Sequence[tuple[str, StoredEvaluation]],
    *,
    earlier: Sequence[Sequence[tuple[str, StoredEvaluation]]],
    unscored: Sequence[str],
) -> Sheet:
    first = own[0][1]
    rows = [row for group in groups for row in _in_each_way(group, own)]
    ways = {key: list(dict.fromkeys(getattr(row.way, key) for row in rows)) for key in _WAYS}
    varying = [key for key, values in ways.items() if len(values) > 1]
    several = any(len(row.scores) > 1 for row in rows)
    notes = Notes()
    lines = []
    for group in groups:
        mine = [row for row in rows if row.group is group]
        apart = _not_averaged(mine)
        for row in mine:
            where = [getattr(row.way, key) for key in varying]
            refer = notes.refer([*apart, *row.remarks()])
            names = ", ".join(row.scores)
            lines.append((group.name, names, row.value, row.count, *where, row.nfe, refer))
        if not mine:
            text = NOT_SCORED if group.title in unscored else ABSENT
            where = ["" for _ in varying]
            lines.append((group.name, group.run_names, text, "", *where, "", ""))
    titles = ["differs in", "runs", "value", "n", *varying, "NFE", "notes"]
    dropped = {i for i in range(len(titles)) if not any(row[i] for row in lines)}
    dropped |= set() if several else {3}
    nfe = len(titles) - 2
    same_nfe = len({row[nfe] for row in lines if row[nfe]}) == 1
    dropped |= {nfe} if same_nfe else set()
    constant = [_stated(key, ways[key][0]) for key in _WAYS if key not in varying]
    constant += [f"NFE {rows[0].nfe}"] if same_nfe else []
    return Sheet(
        name="scores" + (f"-{len(earlier) + 1}" if earlier else ""),
        title=first.title,
        intro=(
            ", ".join(constant) + f"; metric {first.name}.",
            *((_OVER_SEEDS,) if several else ()),
            *_unlike_others(earlier, first),
        ),
        columns=tuple(
            Column(title=title, numeric=i in (2, 3, nfe))
            for i, title in enumerate(titles)
            if i not in dropped
        ),
        lines=tuple(
            Line(cells=tuple(cell for i, cell in enumerate(row) if i not in dropped))
            for row in lines
        ),
        notes=notes.texts,
    )


def _in_each_way(group: SeedGroup, own: Sequence[tuple[str, StoredEvaluation]]) -> list[_Measured]:
    names = {run.name for run in group.runs}
    latest: dict[tuple[str, str, str], StoredEvaluation] = {}
    for name, one in own:
        if name in names:  # oldest first: at a later kimg, the same seeds are scored anew
            latest[name, str(one.protocol.sampler), _seeds(one)] = one
    found: dict[_Way, dict[str, StoredEvaluation]] = {}
    for (name, sampler, seeds), one in latest.items():
        kimg = one.checkpoint.get("kimg")
        way = _Way(sampler=sampler, seeds=seeds, kimg=ABSENT if kimg is None else f"{kimg:g}")
        found.setdefault(way, {})[name] = one
    return [_Measured(group=group, way=way, scores=scores) for way, scores in found.items()]


def _seeds(one: StoredEvaluation) -> str:
    return ", ".join(record.protocol.seeds or "not stated" for record in one.records)


def _stated(key: str, value: str) -> str:
    """The way in which all scores of a sheet were measured, in words."""
    words = {"sampler": value, "seeds": f"sample seeds {value}", "kimg": f"at {value} kimg"}
    return words[key]


def _not_averaged(rows: Sequence[_Measured]) -> list[str]:
    """Why a group has several lines: its runs were measured in different ways."""
    if len(rows) < 2 or len(rows[0].group.runs) < 2:
        return []
    for key, words in (("kimg", "at different kimg"), ("seeds", "on different sample seeds")):
        if len({getattr(row.way, key) for row in rows}) > 1:
            return [f"{rows[0].group.title} was measured {words}: not averaged"]
    return []


def _unlike_others(
    earlier: Sequence[Sequence[tuple[str, StoredEvaluation]]], one: StoredEvaluation
) -> list[str]:
    """Why a score is in another sheet than others of the same metric."""
    others = [other for (_, other), *_ in earlier if other.name == one.name]
    return [
        f"Not comparable with {other.title}: " + "; ".join(other.protocol.differences(one.protocol))
        for other in others
    ]
