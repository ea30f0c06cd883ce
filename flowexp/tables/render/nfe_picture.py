"""The picture of numbers over network evaluations: SVG that needs nothing else."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from flowexp.tables.render.axes import Axes, Scale, tick_text
from flowexp.tables.render.numbers import count_text, mean_text, number_text
from flowexp.tables.render.over_nfe import (
    Line,
    Panel,
    Point,
    is_drawn,
    table_panels,
)
from flowexp.tables.render.style import COLOURS, SERIES, SVG_RULES
from flowexp.tables.results import TableResult

__all__ = ["picture", "table_picture"]

_PANEL, _FIELD = 430, 270
_LEFT, _RIGHT, _BELOW = 56, 18, 44
_MARGIN, _LINE, _LEGEND = 10, 15, 19
_LETTER, _NAME_LETTER, _TITLE_LETTER = 5.9, 7.1, 9.0
"""Widths of an average letter of small text, names and titles, pixels, rather too wide."""
_TICK_ROOM = 6.0
_APART, _ASIDE = 3.0, 12.0
_MARKS = (
    "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0z",
    "M-3 -3h6v6h-6z",
    "M0 -4.2L3.9 2.8H-3.9z",
    "M0 -4.4L4.4 0L0 4.4L-4.4 0z",
    "M0 4.2L3.9 -2.8H-3.9z",
)


@dataclass(frozen=True)
class _Look:
    """How a method is drawn everywhere in a picture: by its number among the methods."""

    number: int

    @property
    def colour(self) -> str:
        return f"var(--s{self.number % SERIES + 1})"

    def mark(self, px: float, py: float, *, measured: bool, title: str = "") -> str:
        shape = _MARKS[self.number % len(_MARKS)]
        style = f"stroke:{self.colour}" + (f";fill:{self.colour}" if measured else "")
        return (
            f'<path class="mark{"" if measured else " hollow"}" style="{style}" '
            f'transform="translate({px:.1f} {py:.1f})" d="{shape}">'
            f"{f'<title>{escape(title)}</title>' if title else ''}</path>\n"
        )


def table_picture(table: TableResult, *, standalone: bool = False) -> str:
    """The picture of a table; empty if no method has numbers at three counts of evaluations.

    Args:
        table: What was published and measured.
        standalone: Whether it is a file of its own rather than part of a page.
    """
    title = f"{table.title}, over network evaluations"
    name = f"{table.name}-{table.budget}"
    return picture(table_panels(table), name=name, title=title, standalone=standalone)


def picture(panels: Sequence[Panel], *, name: str, title: str, standalone: bool = False) -> str:
    """Panels side by side with one legend; empty if no curve has three counts of evaluations.

    Published numbers are dashed thin lines with hollow marks, measured ones solid lines with bars
    of one standard deviation over seeds.

    Args:
        panels: What to draw; numbers of two panels never share an axis.
        name: A name that no other picture of the same page has.
        title: Heading.
        standalone: Whether it is a file of its own rather than part of a page.
    """
    if not is_drawn(panels):
        return ""
    methods = dict.fromkeys(line.method for panel in panels for line in panel.lines)
    looks = {method: _Look(number) for number, method in enumerate(methods)}
    width = _PANEL * len(panels) + _MARGIN
    heading, head_top = _heading(title, width=width)
    heads = [_head(panel, left=_PANEL * n, top=head_top) for n, panel in enumerate(panels)]
    top = max(bottom for _, bottom in heads)
    x_scale = Scale.fitted([p.nfe for panel in panels for p in _points(panel)], zero=False)
    fields = [
        _field(panel, looks=looks, x_scale=x_scale, left=_PANEL * number, top=top)
        for number, panel in enumerate(panels)
    ]
    drawn = "".join(
        f"<g>\n{head}{field}</g>\n" for (head, _), field in zip(heads, fields, strict=True)
    )
    legend, height = _legend(looks, panels, width=width, top=top + _FIELD + _BELOW)
    described = "\n".join(map(_described, panels))
    opening = _opening(width, height, name=name, title=title, described=described)
    style = f"<style>{COLOURS}{SVG_RULES}</style>\n" if standalone else ""
    return f"{opening}{style}{_ground(width, height)}{heading}{drawn}{legend}</svg>\n"


def _opening(width: int, height: int, *, name: str, title: str, described: str) -> str:
    """The start of the picture, which says what it shows."""
    ident = f"nfe-{re.sub(r'[^0-9A-Za-z_]+', '-', name)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" style="max-width:{width}px" role="img" '
        f'aria-labelledby="{ident}-title {ident}-desc">\n'
        f'<title id="{ident}-title">{escape(title)}</title>\n'
        f'<desc id="{ident}-desc">{escape(described)}</desc>\n'
    )


def _ground(width: int, height: int) -> str:
    return f'<rect class="ground" width="{width}" height="{height}"/>\n'


def _heading(title: str, *, width: int) -> tuple[str, float]:
    """The title of the picture, and where it ends."""
    y, texts = 5.0, []
    for text in textwrap.wrap(title, int((width - 2 * _MARGIN) / _TITLE_LETTER)):
        y += 19
        texts.append(f'<text class="head" x="{_MARGIN}" y="{y:g}">{escape(text)}</text>\n')
    return "".join(texts), y + 5


def _head(panel: Panel, *, left: float, top: float) -> tuple[str, float]:
    """Title and protocols of a panel, and where they end."""
    x, y = left + _MARGIN, top + 17
    texts = [f'<text class="subhead" x="{x:g}" y="{y:g}">{escape(panel.title)}</text>\n']
    letters = int((_PANEL - _MARGIN - _RIGHT) / _LETTER)
    for text in (line for full in panel.protocols for line in textwrap.wrap(full, letters)):
        y += _LINE
        texts.append(f'<text x="{x:g}" y="{y:g}">{escape(text)}</text>\n')
    return "".join(texts), y + 16


def _points(panel: Panel) -> Iterator[Point]:
    return (point for line in panel.lines for point in line.points)


def _field(
    panel: Panel, *, looks: dict[str, _Look], x_scale: Scale, left: float, top: float
) -> str:
    """Axes and curves of a panel."""
    barred = [point for point in _points(panel) if point.spread > 0]
    ends = [point.value + sign * point.spread for point in barred for sign in (-1, 1)]
    axes = Axes(
        x=x_scale,
        y=Scale.fitted([point.value for point in _points(panel)], reaching=ends),
        left=left + _LEFT,
        top=top,
        width=_PANEL - _LEFT - _RIGHT,
        height=_FIELD,
    )
    counts = sorted({point.nfe for point in _points(panel)})
    frame = axes.frame(x_label="network evaluations per sample", x_ticks=_apart(counts, axes))
    several = sum(line.measured for line in panel.lines)
    lines, rank = [], 0
    for line in panel.lines:
        # Bars of several methods at the same count would cover each other.
        apart = min(_APART, _ASIDE / several) if line.measured and barred else 0.0
        aside = apart * (rank - (several - 1) / 2)
        rank += line.measured
        lines.append(_line(line, axes, looks[line.method], aside=aside))
    return "\n".join([frame, *lines])


def _apart(counts: Sequence[float], axes: Axes) -> list[float]:
    """The counts whose labels have room."""
    kept: list[float] = []
    edge = 0.0
    for count in counts:
        place = axes.x.fraction(count) * axes.width
        letters = len(tick_text(count))
        if not kept or place - edge >= _LETTER * letters / 2:
            kept.append(count)
            edge = place + _LETTER * letters / 2 + _TICK_ROOM
    return kept


def _line(line: Line, axes: Axes, look: _Look, *, aside: float) -> str:
    parts, places = [], []
    for point in line.points:
        px, py = axes.at(point.nfe, point.value)
        places.append((px + aside, py))
        if point.spread > 0:
            low = axes.at(point.nfe, point.value - point.spread)[1]
            high = axes.at(point.nfe, point.value + point.spread)[1]
            parts.append(
                f'<path class="bar" style="stroke:{look.colour}" '
                f'd="M{px + aside:.1f} {low:.1f}V{high:.1f}m-3 0h6M{px + aside - 3:.1f} '
                f'{low:.1f}h6"/>\n'
            )
    if len(places) > 1:
        joined = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
        kind = "" if line.measured else ' class="published"'
        parts.append(f'<polyline{kind} style="stroke:{look.colour}" points="{joined}"/>\n')
    for (px, py), point in zip(places, line.points, strict=True):
        title = f"{line.method}, {count_text(point.nfe)} evaluations: {_value(point)}"
        parts.append(look.mark(px, py, measured=line.measured, title=title))
    return "".join(parts)


def _legend(
    looks: dict[str, _Look], panels: Sequence[Panel], *, width: int, top: float
) -> tuple[str, int]:
    """The legend, and the height of the picture that ends with it."""
    lines = [line for panel in panels for line in panel.lines]
    solid = {line.method for line in lines if line.measured}
    parts, x, y = [], float(_MARGIN), top + 14
    for method, look in looks.items():
        space = 52 + _NAME_LETTER * len(method)
        if x > _MARGIN and x + space > width:
            x, y = float(_MARGIN), y + _LEGEND
        kind = "" if method in solid else ' class="published"'
        parts.append(
            f'<polyline{kind} style="stroke:{look.colour}" points="{x:.1f},{y - 4:g} '
            f'{x + 26:.1f},{y - 4:g}"/>\n{look.mark(x + 13, y - 4, measured=method in solid)}'
            f'<text class="name" x="{x + 32:.1f}" y="{y:g}">{escape(method)}</text>\n'
        )
        x += space
    notes = ["dashed: published"] if any(not line.measured for line in lines) else []
    notes += ["solid: measured"] if solid else []
    if any(point.spread > 0 for line in lines for point in line.points):
        notes.append("bars: one standard deviation over training seeds, drawn side by side")
    for text in textwrap.wrap("; ".join(notes), int((width - 2 * _MARGIN) / _LETTER)):
        y += _LEGEND
        parts.append(f'<text x="{_MARGIN}" y="{y:g}">{text}</text>\n')
    return "".join(parts), round(y + 12)


def _described(panel: Panel) -> str:
    """The panel in words, for those who do not see it."""
    curves = []
    for line in panel.lines:
        values = ", ".join(f"{_value(p)} at {count_text(p.nfe)}" for p in line.points)
        curves.append(f"{line.method} ({'measured' if line.measured else 'published'}): {values}")
    return f"{panel.title} ({'; '.join(panel.protocols)}). {'. '.join(curves)}."


def _value(point: Point) -> str:
    if not point.seeds:
        return number_text(point.value)
    return mean_text(point.value, spread=point.spread, count=point.seeds)
