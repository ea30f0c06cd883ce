"""Curves of a training, thinned to what a chart can show."""

import itertools
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
    """A metric over kimg; rows without a finite value of it are left out.

    Args:
        rows: What training measured.
        key: The metric.
        label: Name of the curve.
    """
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
    edges = [count * number // most for number in range(most + 1)]
    buckets = [curve.points[a:b] for a, b in itertools.pairwise(edges)]
    return Curve(label=curve.label, points=tuple(map(_mean, buckets)))


def smoothed(curve: Curve) -> tuple[Curve, int]:
    """A running mean over the points behind each, and over how many; 1 for a short curve."""
    count = len(curve.points)
    width = count // _WINDOWS if count >= _SMOOTH_FROM else 1
    if width < 2:
        return curve, 1
    points, total = [], 0.0
    for number, (x, y) in enumerate(curve.points):
        total += y - (curve.points[number - width][1] if number >= width else 0.0)
        points.append((x, total / min(number + 1, width)))
    return Curve(label=curve.label, points=tuple(points)), width


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return (
        math.fsum(x for x, _ in points) / len(points),
        math.fsum(y for _, y in points) / len(points),
    )
