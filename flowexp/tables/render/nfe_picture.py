"""The picture of numbers over network evaluations."""

import math
import textwrap
from collections.abc import Sequence

from flowexp.tables.render.numbers import count_text, mean_text, number_text
from flowexp.tables.render.over_nfe import MethodLine, Panel, Point, is_drawn, table_panels
from flowexp.tables.render.plots import Plot, Series, Subplot, is_log
from flowexp.tables.results import TableResult

__all__ = ["picture", "table_picture"]

_SIZE = (430.0, 400.0)
_LETTERS = 72
"""Letters of a line above a panel."""


def table_picture(table: TableResult) -> Plot | None:
    """The picture of a table; None if no method has numbers at three counts of evaluations."""
    return picture(table_panels(table), title=f"{table.title}, over network evaluations")


def picture(panels: Sequence[Panel], *, title: str) -> Plot | None:
    """Panels side by side with one legend; None if no curve has three counts of evaluations.

    Published numbers are dashed thin lines with hollow marks, measured ones solid lines with bars
    of one standard deviation over seeds. A method has one colour and one mark in all panels.

    Args:
        panels: Subplots; numbers of two panels never share an axis.
        title: Heading.
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
