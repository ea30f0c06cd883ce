"""A line chart as inline SVG: scales with the page, follows its colours, fetches nothing."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from flowexp.report.curves import Curve, smoothed, thinned
from flowexp.tables.render.numbers import number_text

__all__ = ["chart"]

_WIDTH, _HEIGHT = 380, 206
_LEFT, _TOP, _RIGHT, _BOTTOM = 50, 10, 12, 36
_COLOURS = 8
_LOG_FROM = 8.0
_HOVERS = 60
_TICKS = 5


@dataclass(frozen=True, kw_only=True)
class _Axes:
    x: tuple[float, float]
    y: tuple[float, float]
    log: bool

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place of a point in the picture."""
        return _LEFT + self.right(x) * self.width, _TOP + (1.0 - self.up(y)) * self.height

    def right(self, x: float) -> float:
        """Fraction of the width."""
        return (x - self.x[0]) / (self.x[1] - self.x[0])

    def up(self, y: float) -> float:
        """Fraction of the height."""
        low, high = map(self._scaled, self.y)
        return (self._scaled(y) - low) / (high - low)

    def _scaled(self, y: float) -> float:
        return math.log10(y) if self.log else y

    @property
    def width(self) -> float:
        """Width of the field of the curves."""
        return _WIDTH - _LEFT - _RIGHT

    @property
    def height(self) -> float:
        """Height of the field of the curves."""
        return _HEIGHT - _TOP - _BOTTOM


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
        colour = f"var(--s{number % _COLOURS + 1})"
        if width > 1:
            lines.append(_polyline(axes, thinned(curve), colour=colour, kind=' class="raw"'))
            means.append(width)
        lines.append(_polyline(axes, thinned(mean), colour=colour))
    described = "; ".join(_described(curve) for _, curve in drawn)
    caption = described + (f". Thick: running mean of {max(means)} logged values" if means else "")
    scale = "logarithmic" if axes.log else "linear"
    hovers = _hovers(axes, thinned(drawn[0][1], most=_HOVERS)) if len(drawn) == 1 else ""
    return (
        f"<figure>\n<h{level}>{escape(title)}</h{level}>\n"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(f"{title} over kimg, {scale} scale. {described}")}">\n'
        f"{_frame(axes)}\n{''.join(lines)}\n{hovers}</svg>\n"
        f"{_legend(drawn) if len(drawn) > 1 else ''}"
        f"<figcaption>{escape(caption)}.</figcaption>\n</figure>\n"
    )


def _axes(curves: Sequence[Curve], *, may_be_log: bool) -> _Axes:
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    low, high = min(ys), max(ys)
    log = may_be_log and low > 0 and high / low >= _LOG_FROM
    if log:
        room = (high / low) ** 0.04
        span = (low / room, high * room)
    else:
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        # A scale that nearly reaches zero shows it.
        span = (0.0 if 0 <= low < 0.35 * high else low - room, high + room)
    return _Axes(x=(min(xs), max(max(xs), min(xs) + 1e-9)), y=span, log=log)


def _polyline(axes: _Axes, curve: Curve, *, colour: str, kind: str = "") -> str:
    places = " ".join(
        f"{px:.1f},{py:.1f}" for px, py in (axes.at(x, _within(y, axes)) for x, y in curve.points)
    )
    return f'<polyline{kind} style="stroke:{colour}" points="{places}"/>\n'


def _within(y: float, axes: _Axes) -> float:
    return min(max(y, axes.y[0]), axes.y[1])


def _frame(axes: _Axes) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for y in _log_ticks(*axes.y) if axes.log else _ticks(*axes.y):
        py = axes.at(axes.x[0], y)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(
            f'<text x="{_LEFT - 7}" y="{py + 3.5:.1f}" text-anchor="end">{_label(y)}</text>'
        )
    for x in _ticks(*axes.x):
        px = axes.at(x, axes.y[1])[0]
        parts.append(
            f'<line class="axis" x1="{px:.1f}" x2="{px:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        )
        parts.append(
            f'<text x="{px:.1f}" y="{bottom + 17}" text-anchor="middle">{_label(x)}</text>'
        )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(
        f'<text x="{(_LEFT + right) / 2:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">kimg</text>'
    )
    return "\n".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within the range, about five."""
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + number) * step for number in range(count)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the range; of many, the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [s * 10.0**p for p in powers for s in (1, 2, 5) if low <= s * 10.0**p <= high]
    coarse = [10.0**p for p in powers if low <= 10.0**p <= high]
    return coarse if len(fine) > 2 * _TICKS and len(coarse) > 2 else fine


def _label(value: float) -> str:
    return f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e+")


def _hovers(axes: _Axes, curve: Curve) -> str:
    """Invisible stripes whose titles the browser shows under the pointer."""
    xs = [axes.at(x, axes.y[0])[0] for x, _ in curve.points]
    edges = [xs[0], *((a + b) / 2 for a, b in itertools.pairwise(xs)), xs[-1]]
    stripes = [
        f'<rect x="{edges[i]:.1f}" y="{_TOP}" width="{max(0.1, edges[i + 1] - edges[i]):.1f}" '
        f'height="{axes.height}" fill="transparent"><title>{_label(round(x, 3))} kimg: '
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
        f'<li><i style="background:var(--s{number % _COLOURS + 1})"></i>{escape(curve.label)}</li>'
        for number, curve in drawn
    )
    return f'<ul class="legend">{entries}</ul>\n'
