"""A run as a section of the report."""

from collections.abc import Mapping
from dataclasses import asdict
from html import escape

import yaml

from flowexp.report.chart import chart
from flowexp.report.curves import curve_keys, curve_of
from flowexp.report.evaluations import Evaluation
from flowexp.report.facts import (
    choice_facts,
    commands,
    manifest_facts,
    score_text,
    training_facts,
)
from flowexp.report.pictures import evaluation_grid, figure, training_grids
from flowexp.report.run_record import RunRecord
from flowexp.tables.render.html import sheet_html
from flowexp.tables.render.numbers import cost_text, count_text, number_text
from flowexp.tables.render.sheet import Column, Line, Sheet

__all__ = ["curve_title", "run_section"]

_SCORE_TILES = 2
_SCHEDULES = ("train/learning_rate",)
_TITLES: Mapping[str, str] = {
    "train/loss": "Training loss",
    "val/loss": "Validation loss",
    "train/learning_rate": "Learning rate",
    "time/images_per_second": "Speed, images/s",
}


def curve_title(key: str) -> str:
    """The heading of a metric's chart."""
    return _TITLES.get(key, key)


def run_section(run: RunRecord, *, ident: str, grids: int) -> str:
    """The section in HTML.

    Args:
        run: The run.
        ident: Its anchor.
        grids: Largest number of sample grids.
    """
    return "".join(
        [
            f'<section id="{ident}" aria-labelledby="{ident}-title">\n',
            f'<h2 id="{ident}-title">{escape(run.name)}</h2>\n',
            _choices(run),
            _tiles(run),
            "<h3>Training curves</h3>\n",
            _curves(run),
            "<h3>Samples over training</h3>\n",
            training_grids(run, most=grids),
            "<h3>Evaluations</h3>\n",
            _evaluations(run),
            "<h3>To make it again</h3>\n",
            f'<pre class="wrap">{escape(chr(10).join(commands(run)))}</pre>\n',
            _revision_note(run),
            "<h3>Manifest</h3>\n",
            _facts(manifest_facts(run.manifest)),
            "<h3>Configuration</h3>\n",
            _config(run),
            "</section>\n",
        ]
    )


def _choices(run: RunRecord) -> str:
    chosen = ", ".join(f"{group} {option}" for group, option in choice_facts(run).items())
    return f'<p class="soft">{escape(chosen)}</p>\n' if chosen else ""


def _tiles(run: RunRecord) -> str:
    tiles = [_score_tile(evaluation) for evaluation in run.evaluations[-_SCORE_TILES:]]
    facts = training_facts(run)
    cost = [f"{facts['seconds']} s"] if "seconds" in facts else []
    cost += [f"{facts['images/s']} images/s"] if "images/s" in facts else []
    tiles.append(_tile("trained", facts["trained"], small=", ".join([*cost, facts["device"]])))
    if "parameters" in facts:
        tiles.append(_tile("parameters", facts["parameters"], lead=False))
    return f'<dl class="tiles">\n{"".join(tiles)}</dl>\n'


def _score_tile(evaluation: Evaluation) -> str:
    value, _, ranges = score_text(evaluation).partition(" (")
    known = [ranges.rstrip(")")] if ranges else []
    known.append(evaluation.protocol.sampler or "sampler not stated")
    if evaluation.protocol.nfe is not None:
        known.append(f"NFE {count_text(evaluation.protocol.nfe)}")
    if evaluation.floor is not None:
        known.append(f"held-out real data: {number_text(evaluation.floor)}")
    return _tile(evaluation.title, value, small="; ".join(known))


def _tile(name: str, value: str, *, small: str = "", lead: bool = True) -> str:
    below = f"<small>{escape(small)}</small>" if small else ""
    kind = "tile lead" if lead else "tile"
    return f'<div class="{kind}"><dt>{escape(name)}</dt><dd>{escape(value)}{below}</dd></div>\n'


def _curves(run: RunRecord) -> str:
    figures = [
        chart(
            [curve_of(run.rows, key, label=key)],
            title=curve_title(key),
            noisy=key not in _SCHEDULES,
        )
        for key in curve_keys(run.rows)
    ]
    if not any(figures):
        return '<p class="soft">Training logged nothing to draw.</p>\n'
    return f'<div class="charts">\n{"".join(figures)}</div>\n'


def _evaluations(run: RunRecord) -> str:
    if not run.evaluations:
        return '<p class="soft">The run has not been evaluated.</p>\n'
    numbers = ("value", "minimum", "held-out real data", "samples", "NFE", "cost")
    columns = [Column(title="metric"), *(Column(title=name, numeric=True) for name in numbers)]
    columns += [Column(title=name) for name in ("sampler", "weights", "when")]
    sheet = Sheet(
        name="evaluations",
        title="Scores",
        columns=tuple(columns),
        lines=tuple(Line(cells=_cells(evaluation)) for evaluation in run.evaluations),
    )
    details = "".join(_protocol(evaluation) for evaluation in run.evaluations)
    return sheet_html(sheet, level=4) + details + _evaluation_grids(run)


def _cells(evaluation: Evaluation) -> tuple[str, ...]:
    protocol = evaluation.protocol
    several = len(evaluation.values) > 1
    return (
        evaluation.title,
        score_text(evaluation),
        number_text(min(evaluation.values)) if several else "",
        number_text(evaluation.floor),
        count_text(protocol.n_gen) + (f" x {len(evaluation.values)}" if several else ""),
        "-" if protocol.nfe is None else count_text(protocol.nfe),
        cost_text(evaluation.seconds, device=protocol.device or "device not stated"),
        protocol.sampler or "not stated",
        _weights(evaluation),
        evaluation.created[:16].replace("T", " "),
    )


def _weights(evaluation: Evaluation) -> str:
    kimg = evaluation.checkpoint.get("kimg")
    return (evaluation.protocol.ema or "not stated") + (f" at {kimg:g} kimg" if kimg else "")


def _protocol(evaluation: Evaluation) -> str:
    """The whole protocol, and every number of it."""
    stated = {
        name: "not stated" if value is None else str(value)
        for name, value in asdict(evaluation.protocol).items()
    }
    ranges = [record.protocol.seeds or "not stated" for record in evaluation.records]
    facts = {
        **stated,
        "seeds": ", ".join(ranges),
        "values": ", ".join(map(repr, evaluation.values)),
        **{name: repr(value) for name, value in evaluation.records[0].extra.items()},
        "checkpoint": ", ".join(f"{k} {v}" for k, v in evaluation.checkpoint.items()),
    }
    title = f"Protocol of {evaluation.title}, {evaluation.protocol.sampler or 'sampler not stated'}"
    return f"<details><summary>{escape(title)}</summary>\n{_facts(facts)}</details>\n"


def _evaluation_grids(run: RunRecord) -> str:
    figures, shown = [], set()
    for evaluation in run.evaluations:
        path = evaluation_grid(run, evaluation.directory)
        if path is None or path in shown:
            continue
        shown.add(path)
        sampler = evaluation.protocol.sampler or "the run's sampler"
        caption = f"{sampler}, NFE {count_text(evaluation.protocol.nfe or float('nan'))}"
        alt = f"Grid of the first samples scored, drawn with {caption}"
        figures.append(figure(path, alt=alt, caption=caption))
    return f'<div class="grids">\n{"".join(figures)}</div>\n' if figures else ""


def _revision_note(run: RunRecord) -> str:
    code = run.manifest.get("code") or {}
    if not code.get("commit"):
        return ""
    changed = ", which was checked out with uncommitted changes" if code.get("dirty") else ""
    text = f"Code: commit {code['commit']}{changed}."
    return f'<p class="soft">{escape(text)}</p>\n'


def _facts(facts: Mapping[str, str]) -> str:
    entries = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>\n" for name, value in facts.items()
    )
    return f'<dl class="facts">\n{entries}</dl>\n'


def _config(run: RunRecord) -> str:
    text = yaml.safe_dump(dict(run.config), sort_keys=False)
    return (
        f"<details><summary>Resolved configuration, {len(text.splitlines())} lines</summary>\n"
        f"<pre>{escape(text)}</pre></details>\n"
    )
