"""A line chart as inline SVG: scales with the page, follows its colours, fetches nothing."""

import itertools
from collections.abc import Sequence
from html import escape

from flowexp.report.curves import Curve, smoothed, thinned
from flowexp.tables.render.axes import Axes, Scale, tick_text
from flowexp.tables.render.numbers import number_text
from flowexp.tables.render.style import SERIES

__all__ = ["chart"]

_WIDTH, _HEIGHT = 380, 206
_LEFT, _TOP, _RIGHT, _BOTTOM = 50, 10, 12, 36
_HOVERS = 60


def chart(curves: Sequence[Curve], *, title: str, noisy: bool = True, level: int = 4) -> str:
    """A figure of curves over kimg; empty if no curve has two points.

    A long noisy curve is drawn twice, thin as logged and thick as a running mean, on a scale that
    is logarithmic where positive values span a factor of 8 or more.

    Args:
        curves: What to draw; of several, the figure has a legend.
        title: Heading of the figure.
        noisy: Whether the values are measurements rather than a schedule.
        level: Level of the heading.
    """
    drawn = [(number, curve) for number, curve in enumerate(curves) if len(curve.points) > 1]
    if not drawn:
        return ""
    axes = _axes([thinned(curve) for _, curve in drawn], may_be_log=noisy)
    lines, means = [], []
    for number, curve in drawn:
        mean, width = smoothed(curve) if noisy else (curve, 1)
        colour = f"var(--s{number % SERIES + 1})"
        if width > 1:
            lines.append(_polyline(axes, thinned(curve), colour=colour, kind=' class="raw"'))
            means.append(width)
        lines.append(_polyline(axes, thinned(mean), colour=colour))
    described = "; ".join(_described(curve) for _, curve in drawn)
    caption = described + (f". Thick: running mean of {max(means)} logged values" if means else "")
    hovers = _hovers(axes, thinned(drawn[0][1], most=_HOVERS)) if len(drawn) == 1 else ""
    return (
        f"<figure>\n<h{level}>{escape(title)}</h{level}>\n"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(f"{title} over kimg, {axes.y.name} scale. {described}")}">\n'
        f"{axes.frame(x_label='kimg')}\n{''.join(lines)}\n{hovers}</svg>\n"
        f"{_legend(drawn) if len(drawn) > 1 else ''}"
        f"<figcaption>{escape(caption)}.</figcaption>\n</figure>\n"
    )


def _axes(curves: Sequence[Curve], *, may_be_log: bool) -> Axes:
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    return Axes(
        x=Scale.exact(xs),
        y=Scale.fitted(ys, may_be_log=may_be_log),
        left=_LEFT,
        top=_TOP,
        width=_WIDTH - _LEFT - _RIGHT,
        height=_HEIGHT - _TOP - _BOTTOM,
    )


def _polyline(axes: Axes, curve: Curve, *, colour: str, kind: str = "") -> str:
    places = " ".join(f"{px:.1f},{py:.1f}" for px, py in (axes.at(x, y) for x, y in curve.points))
    return f'<polyline{kind} style="stroke:{colour}" points="{places}"/>\n'


def _hovers(axes: Axes, curve: Curve) -> str:
    """Invisible stripes whose titles the browser shows under the pointer."""
    xs = [axes.at(x, axes.y.low)[0] for x, _ in curve.points]
    edges = [xs[0], *((a + b) / 2 for a, b in itertools.pairwise(xs)), xs[-1]]
    stripes = [
        f'<rect x="{edges[i]:.1f}" y="{_TOP}" width="{max(0.1, edges[i + 1] - edges[i]):.1f}" '
        f'height="{axes.height}" fill="transparent"><title>{tick_text(round(x, 3))} kimg: '
        f"{number_text(y)}</title></rect>"
        for i, (x, y) in enumerate(curve.points)
    ]
    return "\n".join(stripes) + "\n"


def _described(curve: Curve) -> str:
    """The curve in words, for those who do not see it."""
    (x0, y0), (x1, y1) = curve.points[0], curve.points[-1]
    lowest = number_text(min(y for _, y in curve.points))
    highest = number_text(max(y for _, y in curve.points))
    text = f"{number_text(y0)} at {x0:g} kimg, {number_text(y1)} at {x1:g} kimg"
    return f"{curve.label}: {text}, lowest {lowest}, highest {highest}"


def _legend(drawn: Sequence[tuple[int, Curve]]) -> str:
    entries = "".join(
        f'<li><i style="background:var(--s{number % SERIES + 1})"></i>{escape(curve.label)}</li>'
        for number, curve in drawn
    )
    return f'<ul class="legend">{entries}</ul>\n'
