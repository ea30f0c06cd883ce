"""Curves over network evaluations: which rows make a curve, and which curves may share an axis.

A method is a row's label without its number of evaluations; rows of one method make a curve.
Published numbers, and what was measured with their protocol, stand on one pair of axes. What was
scaled down or measured otherwise has axes of its own, one pair for each metric title.
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
from flowexp.tables.results import ClaimResult, RowResult, TableResult

__all__ = ["MethodLine", "Panel", "Point", "claim_panels", "is_drawn", "method_of", "table_panels",
           "picture", "table_picture"]  # fmt: skip

_SIZE = (430.0, 400.0)
_FEWEST = 3
_LETTERS = 72
"""Letters of a line above a panel."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A number at some count of evaluations.

    Attributes:
        value: The number; of a measurement the mean over seeds.
        spread: Standard deviation over seeds; nan where there is none.
        seeds: Number of seeds; 0 for a published number.
    """

    nfe: float
    value: float
    spread: float = math.nan
    seeds: int = 0


@dataclass(frozen=True, kw_only=True)
class MethodLine:
    """A curve: at least one point, in the order of evaluations; measured, or else published."""

    method: str
    points: tuple[Point, ...]
    measured: bool


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A pair of axes with at least one curve.

    Attributes:
        title: Kind of its numbers.
        protocols: Their protocols, one sentence each.
    """

    title: str
    protocols: tuple[str, ...]
    lines: tuple[MethodLine, ...]


def method_of(row: RowResult) -> str:
    """The label without the row's number of evaluations.

    That is the last free-standing number in the label that equals the published NFE, or else the
    measured one, with a comma before it: ``EDM, UniPC, 8`` is ``EDM, UniPC``, and ``8 even steps``
    is ``even steps``. A label without that number, or with nothing else, is a method as it stands.
    """
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
    near = [row for row in table.rows if kind_of(row, budget=table.budget).comparable]
    lines += _lines(_measured(near), measured=True)
    panels = []
    if lines:
        named = [] if lines[0].measured else [("published", stated_protocol(table))]
        named += [("measured", title) for title in titles(near)]
        title = " and ".join(dict.fromkeys(name for name, _ in named))
        texts = [f"{name}: {text}" if len(named) > 1 else text for name, text in named]
        panels.append(Panel(title=title, protocols=tuple(texts), lines=lines))
    other: dict[tuple[Kind, str], list[RowResult]] = {}
    for row in table.rows:
        kind = kind_of(row, budget=table.budget)
        if row.measured is not None and not kind.comparable:
            other.setdefault((kind, row.measured.title), []).append(row)
    for (kind, title), rows in other.items():
        panels += _panel(rows, title=kind.title, protocol=title)
    return tuple(panels)


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
    """Whether some curve has three numbers of evaluations or more, so that a picture shows it."""
    lines = (line for panel in panels for line in panel.lines)
    return any(len({point.nfe for point in line.points}) >= _FEWEST for line in lines)


def _panel(rows: Sequence[RowResult], *, title: str, protocol: str) -> list[Panel]:
    lines = _lines(_measured(rows), measured=True)
    return [Panel(title=title, protocols=(protocol,), lines=lines)] if lines else []


def _published(rows: Sequence[RowResult]) -> Iterable[tuple[str, Point]]:
    for row in rows:
        if row.published is not None and row.published_nfe is not None:
            yield method_of(row), Point(nfe=row.published_nfe, value=row.published)


def _measured(rows: Sequence[RowResult]) -> Iterable[tuple[str, Point]]:
    for row in rows:
        if (cell := row.measured) is not None:
            point = Point(nfe=cell.nfe, value=cell.mean, spread=cell.spread, seeds=len(cell.values))
            yield method_of(row), point


def _lines(points: Iterable[tuple[str, Point]], *, measured: bool) -> tuple[MethodLine, ...]:
    """Curves of the points that are finite; a point that occurs twice is drawn once."""
    found: dict[str, list[Point]] = {}
    for method, point in points:
        if math.isfinite(point.nfe) and math.isfinite(point.value):
            mine = found.setdefault(method, [])
            if not any((p.nfe, p.value) == (point.nfe, point.value) for p in mine):
                mine.append(point)
    ordered = {method: sorted(mine, key=lambda point: point.nfe) for method, mine in found.items()}
    return tuple(
        MethodLine(method=method, points=tuple(mine), measured=measured)
        for method, mine in ordered.items()
    )


def _check(line: MethodLine, arms: Sequence[RowResult]) -> None:
    if len({arm.runs for arm in arms}) > 1:
        raise ValueError(f"{line.method} was measured on different runs; no curve joins them")
    counts = [point.nfe for point in line.points]
    twice = sorted({count for count in counts if counts.count(count) > 1})
    if twice:
        values = [f"{point.value:g}" for point in line.points if point.nfe == twice[0]]
        raise ValueError(f"{line.method} at NFE {twice[0]:g} has the numbers {', '.join(values)}")


def table_picture(table: TableResult) -> Plot | None:
    """The picture of a table; None if no method has numbers at three counts of evaluations."""
    return picture(table_panels(table), title=f"{table.title}, over network evaluations")


def picture(panels: Sequence[Panel], *, title: str) -> Plot | None:
    """Panels side by side with one legend; None if no curve has three counts of evaluations.

    Published numbers are dashed thin lines with hollow marks, measured ones solid lines with bars
    of one standard deviation over seeds. A method has one colour and one mark in all panels.
    """
    if not is_drawn(panels):
        return None
    lines = [line for panel in panels for line in panel.lines]
    methods = list(dict.fromkeys(line.method for line in lines))
    log_x = is_log([point.nfe for line in lines for point in line.points])
    notes = ["dashed: published"] if any(not line.measured for line in lines) else []
    notes += ["solid: measured"] if any(line.measured for line in lines) else []
    if any(point.spread > 0 for line in lines for point in line.points):
        notes.append("bars: one standard deviation over training seeds, drawn side by side")
    return Plot(
        subplots=tuple(_subplot(panel, methods, log_x=log_x) for panel in panels),
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
        x_label="network evaluations per sample",
        title="\n".join(head),
        log_x=log_x,
        log_y=is_log([point.value for point in points]),
        ticks=tuple(sorted({point.nfe for point in points})),
    )


def _series(line: MethodLine, number: int) -> Series:
    bars = tuple(point.spread if point.spread > 0 else math.nan for point in line.points)
    return Series(
        label=line.method,
        points=tuple((point.nfe, point.value) for point in line.points),
        number=number,
        bars=() if all(map(math.isnan, bars)) else bars,
        marked=True,
        dashed=not line.measured,
    )


def _described(panel: Panel) -> str:
    """The panel in words, for screen readers."""
    curves = []
    for line in panel.lines:
        values = ", ".join(f"{_value(p)} at {count_text(p.nfe)}" for p in line.points)
        curves.append(f"{line.method} ({'measured' if line.measured else 'published'}): {values}")
    return f"{panel.title} ({'; '.join(panel.protocols)}). {'. '.join(curves)}."


def _value(point: Point) -> str:
    if not point.seeds:
        return number_text(point.value)
    return mean_text(point.value, spread=point.spread, count=point.seeds)
