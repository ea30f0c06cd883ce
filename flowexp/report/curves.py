"""Curves of a training, thinned to the resolution of a chart."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Curve", "curve_keys", "curve_of", "smoothed", "thinned"]

_NO_CURVE = ("step", "kimg", "partial", "time/seconds")
_FIRST = ("train/loss", "val/loss", "train/learning_rate", "time/images_per_second")
_MOST_POINTS = 400
_SMOOTH_FROM = 60
_WINDOWS = 25


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart.

    Attributes:
        label: Its name.
        points: (kimg, value), in the order of kimg.
    """

    label: str
    points: tuple[tuple[float, float], ...]


def curve_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics of a training that are curves: loss, learning rate and speed first."""
    keys = dict.fromkeys(
        key
        for row in rows
        for key, value in row.items()
        if key not in _NO_CURVE and isinstance(value, int | float) and not isinstance(value, bool)
    )
    return [*(key for key in _FIRST if key in keys), *(key for key in keys if key not in _FIRST)]


def curve_of(rows: Sequence[Mapping[str, Any]], key: str, *, label: str) -> Curve:
    """A metric over kimg; rows without a finite value of it are left out."""
    points = [
        (float(row["kimg"]), float(row[key]))
        for row in rows
        if isinstance(row.get(key), int | float) and isinstance(row.get("kimg"), int | float)
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
