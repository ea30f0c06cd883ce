"""Line charts of training."""

from collections.abc import Sequence

from flowexp.report.curves import Curve, smoothed, thinned
from flowexp.tables.render.numbers import number_text
from flowexp.tables.render.plots import Plot, Series, Subplot, is_log

__all__ = ["chart"]

_SIZE = (380.0, 206.0)
_LEGEND = 18.0


def chart(curves: Sequence[Curve], *, title: str, noisy: bool = True) -> Plot | None:
    """Curves over kimg; None if no curve has two points.

    A long noisy curve is drawn twice, thin as logged and thick as a running mean, on a scale that
    is logarithmic where positive values span a factor of 8 or more.

    Args:
        curves: The curves; of several, the chart has a legend.
        title: Its heading.
        noisy: Whether the values are measurements rather than a schedule.
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
    lowest = number_text(min(y for _, y in curve.points))
    highest = number_text(max(y for _, y in curve.points))
    text = f"{number_text(y0)} at {x0:g} kimg, {number_text(y1)} at {x1:g} kimg"
    return f"{curve.label}: {text}, lowest {lowest}, highest {highest}"
