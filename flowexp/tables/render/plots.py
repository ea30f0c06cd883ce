"""Charts as SVG and PNG; the one module that knows matplotlib."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from flowexp.tables.render.style import COLOURS, LIGHT, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Field", "Plot", "Series", "is_log", "tick_text"]

_LOG_FROM = 8.0
_MARKS = "os^Dv"
_APART, _ASIDE = 3.0, 12.0
_RULES = {
    "svg.fonttype": "none", "svg.hashsalt": "flowexp", "text.parse_math": False,
    "font.size": 10, "axes.titlesize": 10,
    "axes.titlelocation": "left", "axes.spines.left": False, "axes.spines.right": False,
    "axes.spines.top": False, "axes.edgecolor": LIGHT["soft"], "axes.labelcolor": LIGHT["soft"],
    "axes.titlecolor": LIGHT["soft"], "axes.facecolor": LIGHT["ground"], "axes.grid": True,
    "axes.grid.axis": "y", "axes.axisbelow": True, "grid.color": LIGHT["line"],
    "figure.facecolor": LIGHT["ground"], "savefig.facecolor": LIGHT["ground"],
    "text.color": LIGHT["ink"], "xtick.color": LIGHT["soft"], "ytick.color": LIGHT["soft"],
    "ytick.major.size": 0, "legend.frameon": False, "legend.title_fontsize": 9,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Series:
    """A curve.

    Attributes:
        label: Its name in the legend; empty for none.
        points: (x, y), finite, at least one.
        number: Which colour and which mark it has.
        bars: Half the length of the bar of each point, nan for none; empty without bars.
        marked: Whether its points have marks, which are hollow on a dashed curve.
        dashed: Whether its line is thin and dashed.
        faint: Whether it lies behind another of its colour.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    number: int
    bars: tuple[float, ...] = ()
    marked: bool = False
    dashed: bool = False
    faint: bool = False


@dataclass(frozen=True, kw_only=True)
class Field:
    """A pair of axes.

    Attributes:
        series: Its curves, at least one.
        x_label: Below the ticks of x.
        title: Above it.
        log_x: Whether x is logarithmic.
        log_y: Whether y is logarithmic; every y is then positive.
        ticks: Ticks of x, in order, of which those without room are left out; round numbers if
            empty.
    """

    series: tuple[Series, ...]
    x_label: str
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    ticks: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Fields side by side, with one legend below them if a series has a label.

    Attributes:
        fields: At least one.
        size: Width and height of a field, points.
        title: Heading, also for those who do not see the picture.
        described: What it shows, for those who do not see it.
        headed: Whether the heading is drawn.
        note: Above the legend.
    """

    fields: tuple[Field, ...]
    size: tuple[float, float]
    title: str
    described: str
    headed: bool = False
    note: str = ""

    def svg(self) -> str:
        """A file that needs nothing else, follows light and dark grounds, and is always the same.

        Texts stay texts, and colours are variables of its own style.
        """
        text = self._saved("svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        drawn = text.decode().partition("<svg ")[2]
        for name, colour in LIGHT.items():
            drawn = drawn.replace(colour, f"var(--{name})")
        opening, _, content = drawn.partition(">")
        return (
            f'<svg role="img" aria-labelledby="title desc" {opening}>\n'
            f'<title id="title">{escape(self.title)}</title>\n'
            f'<desc id="desc">{escape(self.described)}</desc>\n<style>{COLOURS}</style>{content}'
        )

    def png(self) -> bytes:
        """A picture of two pixels per point on a light ground."""
        return self._saved("png", metadata={"Software": None})

    def _saved(self, form: str, *, metadata: dict[str, None]) -> bytes:
        from matplotlib import rc_context, rcParamsDefault

        written = io.BytesIO()
        # Nothing of a user's own settings; the backend is left alone, since no context restores it.
        rules: dict[Any, Any] = {**rcParamsDefault, **_RULES}
        rules.pop("backend")
        with rc_context(rules):
            self._drawn().savefig(written, format=form, dpi=144, metadata=metadata)
        return written.getvalue()

    def _drawn(self) -> "Figure":
        from matplotlib.figure import Figure

        width, height = self.size[0] * len(self.fields), self.size[1]
        figure = Figure((width / 72, height / 72), layout="constrained")
        for axes, field in zip(figure.subplots(1, len(self.fields), squeeze=False)[0], self.fields,
                               strict=True):  # fmt: skip
            _draw(axes, field)
        if self.headed:
            heading = textwrap.fill(self.title, int(width / 8))
            figure.suptitle(heading, x=0.01, ha="left", fontsize=13, fontweight="bold")
        # Of the curves of one label, the legend shows a solid one.
        shown = {
            line.get_label(): line
            for dashed in (True, False)
            for axes in figure.axes
            for line in axes.get_lines()
            if line.is_dashed() == dashed
        }
        labels = dict.fromkeys(s.label for field in self.fields for s in field.series if s.label)
        if labels:
            longest = max(map(len, labels))
            figure.legend(
                [shown[label] for label in labels],
                list(labels),
                loc="outside lower left",
                ncols=max(1, int(width / (50 + 6.5 * longest))),
                title=textwrap.fill(self.note, int(width / 5.5)),
                alignment="left",
            )
        return figure


def is_log(values: Sequence[float]) -> bool:
    """Whether positive values span a factor of 8 or more, so that their scale is logarithmic."""
    return min(values) > 0 and max(values) / min(values) >= _LOG_FROM


def tick_text(value: float, place: int | None = None) -> str:
    """A value beside its tick.

    Args:
        value: The value.
        place: Which tick it is, as matplotlib counts them; without influence.
    """
    return f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e+")


def _draw(axes: "Axes", field: Field) -> None:
    from matplotlib.transforms import ScaledTranslation

    barred = [series for series in field.series if series.bars]
    apart = min(_APART, _ASIDE / len(barred)) if barred else 0.0
    figure = axes.get_figure()
    for series in field.series:
        # Bars of several curves at the same x would cover each other.
        rank = barred.index(series) - (len(barred) - 1) / 2 if series in barred else 0.0
        aside = ScaledTranslation(rank * apart / 72, 0, figure.dpi_scale_trans)  # type: ignore[union-attr]
        _draw_series(axes, series, transform=axes.transData + aside)
    axes.set_title(field.title)
    axes.set_xlabel(field.x_label)
    xs = [x for series in field.series for x, _ in series.points]
    _scale(axes, "x", xs, log=field.log_x)
    _scale(axes, "y", _reached(field), log=field.log_y)
    if field.ticks:
        axes.set_xticks(_with_room(field.ticks, axes))


def _draw_series(axes: "Axes", series: Series, *, transform: Any) -> None:  # noqa: ANN401
    colour = LIGHT[f"s{series.number % SERIES + 1}"]
    xs, ys = zip(*series.points, strict=True)
    drawn = axes.errorbar(
        xs,
        ys,
        yerr=series.bars or None,
        color=colour,
        linestyle="--" if series.dashed else "-",
        linewidth=1.0 if series.dashed or series.faint else 1.8,
        alpha=0.35 if series.faint else None,
        marker=_MARKS[series.number % len(_MARKS)] if series.marked else "",
        markersize=5.5,
        markerfacecolor=LIGHT["ground"] if series.dashed else colour,
        capsize=3,
        elinewidth=1.0,
        transform=transform,
    )
    drawn[0].set_label(series.label)


def _reached(field: Field) -> list[float]:
    """Every y, and the ends of bars where the scale can show them."""
    points = [(y, bar) for series in field.series
              for (_, y), bar in zip(series.points, series.bars or [0.0] * len(series.points),
                                     strict=True)]  # fmt: skip
    ends = [y + sign * bar for y, bar in points if bar > 0 for sign in (-1, 1)]
    return [y for y, _ in points] + [y for y in ends if y > 0 or not field.log_y]


def _scale(axes: "Axes", name: str, values: Sequence[float], *, log: bool) -> None:
    """A scale with some room around the values; a linear one that nearly reaches zero shows it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = min(values), max(values)
    axis, limit = (axes.xaxis, axes.set_xlim) if name == "x" else (axes.yaxis, axes.set_ylim)
    if log:
        axes.set(**{f"{name}scale": "log"})
        room = (high / low) ** 0.04
        limit(low / room, high * room)
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
        axis.set_minor_locator(NullLocator())
    else:
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        limit(0.0 if name == "y" and 0 <= low < 0.35 * high else low - room, high + room)
    axis.set_major_formatter(FuncFormatter(tick_text))


def _with_room(ticks: Sequence[float], axes: "Axes") -> list[float]:
    """The ticks whose labels do not run into the one before."""
    kept: list[float] = []
    edge = float("-inf")
    for tick in ticks:
        place = axes.transAxes.inverted().transform(axes.transData.transform((tick, 1.0)))[0]
        half = 0.01 * len(tick_text(tick))
        if place - half >= edge:
            kept.append(tick)
            edge = place + half + 0.015
    return kept
