"""A small line plot with bars for the spread, drawn with Pillow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Line", "draw_lines"]

_SIZE = (760, 520)
_LEFT, _TOP, _RIGHT, _BOTTOM = 80, 46, 150, 60
_COLOURS = ["#1b6ca8", "#d1495b", "#2e933c", "#b07d12", "#6a4c93", "#444444", "#0f8b8d"]
_DASH = 4


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Attributes:
        label: Its name in the legend.
        x: Abscissae.
        y: Values, > 0.
        low: Lower ends of the bars.
        high: Upper ends.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class _Axes:
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixel of a point; the ordinate is logarithmic."""
        width, height = _SIZE[0] - _LEFT - _RIGHT, _SIZE[1] - _TOP - _BOTTOM
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        u = (x - x0) / (x1 - x0)
        w = (math.log(y) - math.log(y0)) / (math.log(y1) - math.log(y0))
        return _LEFT + u * width, _TOP + (1.0 - w) * height


def draw_lines(
    path: Path, lines: Sequence[Line], *, title: str, x_label: str, y_label: str
) -> None:
    """Write a PNG: one line each with bars from low to high, logarithmic ordinate, legend.

    Args:
        path: Where to; the folder must exist.
        lines: At least one, with positive values.
        title: Above the plot.
        x_label: Below it.
        y_label: Left above it.
    """
    image = Image.new("RGB", _SIZE, "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    abscissae = sorted({x for line in lines for x in line.x})
    lowest = min(min(line.low) for line in lines)
    highest = max(max(line.high) for line in lines)
    span = (abscissae[0], max(abscissae[-1], abscissae[0] + 1e-9))
    axes = _Axes(span, (lowest / 1.15, highest * 1.15))
    _frame(pen, font, axes, abscissae)
    pen.text((_LEFT, 8), title, fill="black", font=ImageFont.load_default(16))
    pen.text((_LEFT, 27), y_label, fill="black", font=font)
    pen.text(((_LEFT + _SIZE[0] - _RIGHT) / 2, _SIZE[1] - 18), x_label, fill="black", font=font,
             anchor="mm")  # fmt: skip
    for number, line in enumerate(lines):
        _line(pen, axes, line, colour=_COLOURS[number % len(_COLOURS)])
        y = _TOP + 10 + 22 * number
        left = _SIZE[0] - _RIGHT + 16
        colour = _COLOURS[number % len(_COLOURS)]
        pen.line([(left, y), (left + 22, y)], fill=colour, width=3)
        pen.text((left + 30, y), line.label, fill="black", font=font, anchor="lm")
    image.save(path)


def _frame(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    axes: _Axes,
    abscissae: Sequence[float],
) -> None:
    right, bottom = _SIZE[0] - _RIGHT, _SIZE[1] - _BOTTOM
    for x in abscissae:
        px = axes.at(x, axes.y_range[0])[0]
        pen.line([(px, bottom), (px, bottom + _DASH)], fill="black")
        pen.text((px, bottom + 8), f"{x:g}", fill="black", font=font, anchor="mt")
    for y in _ticks(*axes.y_range):
        py = axes.at(axes.x_range[0], y)[1]
        pen.line([(_LEFT, py), (right, py)], fill="#dddddd")
        pen.text((_LEFT - 8, py), f"{y:g}", fill="black", font=font, anchor="rm")
    pen.rectangle([_LEFT, _TOP, right, bottom], outline="black")


def _line(pen: ImageDraw.ImageDraw, axes: _Axes, line: Line, *, colour: str) -> None:
    points = [axes.at(x, y) for x, y in zip(line.x, line.y, strict=True)]
    pen.line(points, fill=colour, width=3)
    for (px, py), x, low, high in zip(points, line.x, line.low, line.high, strict=True):
        top, bottom = axes.at(x, high)[1], axes.at(x, low)[1]
        pen.line([(px, top), (px, bottom)], fill=colour)
        for end in (top, bottom):
            pen.line([(px - _DASH, end), (px + _DASH, end)], fill=colour)
        pen.ellipse([px - 3, py - 3, px + 3, py + 3], fill=colour)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the range; finer ones where these are too few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tuple(k / 10 for k in range(10, 100))):
        found = [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]
        if len(found) >= 3:
            break
    return [float(f"{y:.3g}") for y in found]
