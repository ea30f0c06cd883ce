"""Curves over evaluations or training time: which rows make one, and which may share an axis.

A method is what a row says or its label without its number of evaluations; rows of one method make
a curve. Published numbers, and what was measured with their protocol, stand on one pair of axes.
What was scaled down or measured otherwise has axes of its own, one pair for each metric title and
family of methods. Rows that score a method at several lengths of its training are curves over
training time, one pair of axes for each number of evaluations; over evaluations stands the longest.
"""

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flowexp.tables.render.cells import (
    Kind,
    count_text,
    kind_of,
    mean_text,
    number_text,
    stated_protocol,
    titles,
)
from flowexp.tables.render.plots import Plot, Series, Subplot, is_log
from flowexp.tables.results import ClaimResult, Measurement, RowResult, TableResult

__all__ = ["MethodLine", "Panel", "Point", "claim_panels", "is_drawn", "method_of", "table_panels",
           "picture", "table_picture"]  # fmt: skip

_SIZE = (430.0, 400.0)
_FEWEST = 3
_LETTERS = 72
"""Letters of a line above a panel."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A number at some count of evaluations, or after some seconds of training.

    Attributes:
        value: The number; of a measurement the mean over seeds.
        spread: Standard deviation over seeds; nan where there is none.
        seeds: Number of seeds; 0 for a published number.
    """

    x: float
    value: float
    spread: float = math.nan
    seeds: int = 0


@dataclass(frozen=True, kw_only=True)
class MethodLine:
    """A curve: at least one point, in the order of x; measured, or else published."""

    method: str
    points: tuple[Point, ...]
    measured: bool


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A pair of axes with at least one curve.

    Attributes:
        title: Kind of its numbers.
        protocols: Their protocols, one sentence each.
        x_label: What x is, with its unit.
        counts: Whether x counts something, so that each x is a tick.
    """

    title: str
    protocols: tuple[str, ...]
    lines: tuple[MethodLine, ...]
    x_label: str = "network evaluations per sample"
    counts: bool = True


def method_of(row: RowResult) -> str:
    """The method that the row names, or its label without the row's number of evaluations.

    That is the last free-standing number in the label that equals the published NFE, or else the
    measured one, with a comma before it: ``EDM, UniPC, 8`` is ``EDM, UniPC``, and ``8 even steps``
    is ``even steps``. A label without that number, or with nothing else, is a method as it stands.
    """
    if row.method is not None:
        return row.method
    for count in (row.published_nfe, row.measured.nfe if row.measured else None):
        number = "" if count is None else re.escape(f"{count:g}")
        found = list(re.finditer(rf",?\s*(?<![\w.=+/-]){number}(?![\w%-]|\.\d)", row.label))
        if number and found:
            rest = row.label[: found[-1].start()] + row.label[found[-1].end() :]
            return rest.strip(" ,") or row.label
    return row.label


def table_panels(table: TableResult) -> tuple[Panel, ...]:
    """The axes of a table: first that of the publication, then one for each other measurement."""
    lines = _lines(_published(table.rows), measured=False)
    near = [
        row
        for row in table.rows
        if kind_of(row, budget=table.budget).comparable and row.family is None
    ]
    lines += _lines(_measured(near), measured=True)
    panels = []
    if lines:
        named = [] if lines[0].measured else [("published", stated_protocol(table))]
        named += [("measured", title) for title in titles(near)]
        title = " and ".join(dict.fromkeys(name for name, _ in named))
        texts = [f"{name}: {text}" if len(named) > 1 else text for name, text in named]
        panels.append(Panel(title=title, protocols=tuple(texts), lines=lines))
    other: dict[tuple[Kind, str, str | None], list[RowResult]] = {}
    for row in table.rows:
        kind = kind_of(row, budget=table.budget)
        if row.measured is not None and not (kind.comparable and row.family is None):
            title = _of_any_length(row.measured) if row.family else row.measured.title
            other.setdefault((kind, title, row.family), []).append(row)
    for (kind, title, family), rows in other.items():
        name = family or kind.title
        panels += _panel(_longest(rows), title=name, protocol=title)
        panels += _over_training(rows, title=name)
    return tuple(panels)


def _of_any_length(cell: Measurement) -> str:
    """The title without the checkpoint, which differs along a curve over training time."""
    selection = str(cell.protocol.get("selection", ""))
    named = selection.startswith("checkpoint ")
    return cell.title.removesuffix(f", {selection}") if named else cell.title


def _longest(rows: Sequence[RowResult]) -> list[RowResult]:
    """Of rows that differ in the length of training, those of the longest."""
    most: dict[str, float] = {}
    for row in rows:
        most[method_of(row)] = max(_kimg(row), most.get(method_of(row), 0.0))
    return [row for row in rows if _kimg(row) == most[method_of(row)]]


def _kimg(row: RowResult) -> float:
    return (row.measured.kimg if row.measured else None) or 0.0


def _over_training(rows: Sequence[RowResult], *, title: str) -> Iterable[Panel]:
    """Curves over training time, for each number of evaluations at which one has three points."""
    found: dict[float, list[tuple[str, Point]]] = {}
    for row in rows:
        cell = row.measured
        if cell is not None and cell.training_seconds is not None:
            at = _point(cell, x=cell.training_seconds)
            found.setdefault(cell.nfe, []).append((method_of(row), at))
    for nfe, points in found.items():
        panel = Panel(
            title=title,
            protocols=(f"with {count_text(nfe)} evaluation{'' if nfe == 1 else 's'} per sample",),
            lines=_lines(points, measured=True),
            x_label="seconds of training",
            counts=False,
        )
        if is_drawn([panel]):
            yield panel


def claim_panels(claims: Sequence[ClaimResult]) -> tuple[Panel, ...]:
    """The axes of the arms of several claims: one for each budget and metric title.

    An arm that several claims share is drawn once.

    Raises:
        ValueError: Arms of one label were measured on different runs, so that no curve joins them,
            or have different numbers at the same number of evaluations.
    """
    groups: dict[tuple[str, str], list[RowResult]] = {}
    for claim in claims:
        for arm in claim.arms:
            if arm.measured is not None:
                groups.setdefault((claim.budget, arm.measured.title), []).append(arm)
    panels: list[Panel] = []
    for (budget, title), arms in groups.items():
        found = _panel(arms, title=f"measured, budget {budget}", protocol=title)
        for line in (line for panel in found for line in panel.lines):
            _check(line, [arm for arm in arms if method_of(arm) == line.method])
        panels += found
    return tuple(panels)


def is_drawn(panels: Sequence[Panel]) -> bool:
    """Whether some curve has three different x or more, so that a picture shows it."""
    lines = (line for panel in panels for line in panel.lines)
    return any(len({point.x for point in line.points}) >= _FEWEST for line in lines)


def _panel(rows: Sequence[RowResult], *, title: str, protocol: str) -> list[Panel]:
    lines = _lines(_measured(rows), measured=True)
    return [Panel(title=title, protocols=(protocol,), lines=lines)] if lines else []


def _published(rows: Sequence[RowResult]) -> Iterable[tuple[str, Point]]:
    for row in rows:
        if row.published is not None and row.published_nfe is not None:
            yield method_of(row), Point(x=row.published_nfe, value=row.published)


def _measured(rows: Sequence[RowResult]) -> Iterable[tuple[str, Point]]:
    for row in rows:
        if row.measured is not None:
            yield method_of(row), _point(row.measured, x=row.measured.nfe)


def _point(cell: Measurement, *, x: float) -> Point:
    return Point(x=x, value=cell.mean, spread=cell.spread, seeds=len(cell.values))


def _lines(points: Iterable[tuple[str, Point]], *, measured: bool) -> tuple[MethodLine, ...]:
    """Curves of the points that are finite; a point that occurs twice is drawn once."""
    found: dict[str, list[Point]] = {}
    for method, point in points:
        if math.isfinite(point.x) and math.isfinite(point.value):
            mine = found.setdefault(method, [])
            if not any((p.x, p.value) == (point.x, point.value) for p in mine):
                mine.append(point)
    ordered = {method: sorted(mine, key=lambda point: point.x) for method, mine in found.items()}
    return tuple(
        MethodLine(method=method, points=tuple(mine), measured=measured)
        for method, mine in ordered.items()
    )


def _check(line: MethodLine, arms: Sequence[RowResult]) -> None:
    if len({arm.runs for arm in arms}) > 1:
        raise ValueError(f"{line.method} was measured on different runs; no curve joins them")
    counts = [point.x for point in line.points]
    twice = sorted({count for count in counts if counts.count(count) > 1})
    if twice:
        values = [f"{point.value:g}" for point in line.points if point.x == twice[0]]
        raise ValueError(f"{line.method} at NFE {twice[0]:g} has the numbers {', '.join(values)}")


def table_picture(table: TableResult) -> Plot | None:
    """The picture of a table; None if no method has numbers at three counts of evaluations."""
    panels = table_panels(table)
    over = "network evaluations"
    if not all(panel.counts for panel in panels):
        over += " and training time"
    return picture(panels, title=f"{table.title}, over {over}")


def picture(panels: Sequence[Panel], *, title: str) -> Plot | None:
    """Panels side by side with one legend; None if no curve has three counts of evaluations.

    Published numbers are dashed thin lines with hollow marks, measured ones solid lines with bars
    of one standard deviation over seeds. A method has one colour and one mark in all panels.
    """
    if not is_drawn(panels):
        return None
    lines = [line for panel in panels for line in panel.lines]
    methods = list(dict.fromkeys(line.method for line in lines))
    xs: dict[str, list[float]] = {}
    for panel in panels:
        of_panel = [point.x for line in panel.lines for point in line.points]
        xs.setdefault(panel.x_label, []).extend(of_panel)
    log_x = {label: is_log(places) for label, places in xs.items()}
    notes = ["dashed: published"] if any(not line.measured for line in lines) else []
    notes += ["solid: measured"] if any(line.measured for line in lines) else []
    if any(point.spread > 0 for line in lines for point in line.points):
        notes.append("bars: one standard deviation over training seeds, drawn side by side")
    return Plot(
        subplots=tuple(_subplot(panel, methods, log_x=log_x[panel.x_label]) for panel in panels),
        size=_SIZE,
        title=title,
        described="\n".join(map(_described, panels)),
        note="; ".join(notes),
    )


def _subplot(panel: Panel, methods: Sequence[str], *, log_x: bool) -> Subplot:
    points = [point for line in panel.lines for point in line.points]
    head = [panel.title, *(textwrap.fill(text, _LETTERS) for text in panel.protocols)]
    return Subplot(
        series=tuple(_series(line, methods.index(line.method)) for line in panel.lines),
        x_label=panel.x_label,
        title="\n".join(head),
        log_x=log_x,
        log_y=is_log([point.value for point in points]),
        ticks=tuple(sorted({point.x for point in points})) if panel.counts else (),
    )


def _series(line: MethodLine, number: int) -> Series:
    bars = tuple(point.spread if point.spread > 0 else math.nan for point in line.points)
    return Series(
        label=line.method,
        points=tuple((point.x, point.value) for point in line.points),
        number=number,
        bars=() if all(map(math.isnan, bars)) else bars,
        marked=True,
        dashed=not line.measured,
    )


def _described(panel: Panel) -> str:
    """The panel in words, for screen readers."""
    curves = []
    for line in panel.lines:
        values = ", ".join(f"{_value(p)} at {count_text(p.x)}" for p in line.points)
        curves.append(f"{line.method} ({'measured' if line.measured else 'published'}): {values}")
    return f"{panel.title} ({'; '.join(panel.protocols)}). {'. '.join(curves)}."


def _value(point: Point) -> str:
    if not point.seeds:
        return number_text(point.value)
    return mean_text(point.value, spread=point.spread, count=point.seeds)
