"""Curves of a training, and line charts of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowexp.tables.render.cells import number_text
from flowexp.tables.render.plots import Plot, Series, Subplot, is_log

__all__ = ["TITLES", "Curve", "curve_keys", "curve_of", "smoothed", "thinned", "chart"]

TITLES: Mapping[str, str] = {
    "train/loss": "Training loss",
    "val/loss": "Validation loss",
    "train/learning_rate": "Learning rate",
    "time/images_per_second": "Speed, images/s",
    "time/cores": "Busy cores",
    "system/memory_gib": "Most memory so far, GiB",
}
"""Headings of the charts of metrics, in the order of the page."""

_SIZE = (380.0, 206.0)
_LEGEND = 18.0

_NO_CURVE = ("step", "kimg", "partial", "time/seconds")
_MOST_POINTS = 400
_SMOOTH_FROM = 60
_WINDOWS = 25


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart: its name, and (kimg, value) in the order of kimg."""

    label: str
    points: tuple[tuple[float, float], ...]


def curve_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics of a training that are curves: those of ``TITLES`` first."""
    keys = dict.fromkeys(
        key
        for row in rows
        for key, value in row.items()
        if key not in _NO_CURVE and isinstance(value, int | float) and not isinstance(value, bool)
    )
    return [*(key for key in TITLES if key in keys), *(key for key in keys if key not in TITLES)]


def curve_of(rows: Sequence[Mapping[str, Any]], key: str, *, label: str) -> Curve:
    """A metric over kimg; rows without a finite value of it are left out."""
    points = [
        (float(row["kimg"]), float(row[key]))
        for row in rows
        if all(isinstance(row.get(name), int | float) for name in ("kimg", key))
    ]
    return Curve(label=label, points=tuple(p for p in points if all(map(math.isfinite, p))))


def thinned(curve: Curve, *, most: int = _MOST_POINTS) -> Curve:
    """The curve with at most ``most`` points, each the mean of as many neighbours."""
    count = len(curve.points)
    if count <= most:
        return curve
    import numpy

    means = [part.mean(axis=0) for part in numpy.array_split(numpy.array(curve.points), most)]
    return Curve(label=curve.label, points=tuple((float(x), float(y)) for x, y in means))


def smoothed(curve: Curve) -> tuple[Curve, int]:
    """A running mean over the points behind each, and over how many; 1 for a short curve."""
    count = len(curve.points)
    width = count // _WINDOWS if count >= _SMOOTH_FROM else 1
    if width < 2:
        return curve, 1
    import pandas

    xs, ys = zip(*curve.points, strict=True)
    means = pandas.Series(ys).rolling(width, min_periods=1).mean().tolist()
    return Curve(label=curve.label, points=tuple(zip(xs, means, strict=True))), width


def chart(curves: Sequence[Curve], *, title: str, noisy: bool = True) -> Plot | None:
    """Curves over kimg; None if no curve has two points.

    A long curve of measurements (noisy) is drawn twice, thin as logged and thick as a running mean,
    on a scale that is logarithmic where positive values span a factor of 8 or more.
    """
    drawn = [(number, curve) for number, curve in enumerate(curves) if len(curve.points) > 1]
    if not drawn:
        return None
    series, means = [], []
    for number, curve in drawn:
        mean, width = smoothed(curve) if noisy else (curve, 1)
        if width > 1:
            series.append(Series(label="", points=thinned(curve).points, number=number))
            means.append(width)
        series.append(Series(label=curve.label, points=thinned(mean).points, number=number))
    log = noisy and is_log([y for one in series for _, y in one.points])
    described = "; ".join(_described(curve) for _, curve in drawn)
    thick = f" Thick: running mean of {max(means)} logged values." if means else ""
    return Plot(
        subplots=(Subplot(series=tuple(series), x_label="kimg", log_y=log),),
        size=(_SIZE[0], _SIZE[1] + (_LEGEND * len(drawn) if len(drawn) > 1 else 0.0)),
        title=title,
        described=f"{'Logarithmic' if log else 'Linear'} scale. {described}.{thick}",
    )


def _described(curve: Curve) -> str:
    """The curve in words, for screen readers."""
    (x0, y0), (x1, y1) = curve.points[0], curve.points[-1]
    values = [y for _, y in curve.points]
    text = f"{number_text(y0)} at {x0:g} kimg, {number_text(y1)} at {x1:g} kimg"
    extremes = f"lowest {number_text(min(values))}, highest {number_text(max(values))}"
    return f"{curve.label}: {text}, {extremes}"
