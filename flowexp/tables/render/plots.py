"""Charts as SVG and PNG, drawn by matplotlib."""

import io
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "LIGHT", "Plot", "Series", "Subplot", "is_log"]

SERIES = 8
"""Number of colours ``s1``, ``s2``, ... for curves."""

LIGHT: Mapping[str, str] = {
    "ground": "#ffffff", "panel": "#f6f7f9", "line": "#dfe2e8", "ink": "#1b1f27",
    "soft": "#596173", "link": "#1b5fae", "good": "#1a7f37", "bad": "#c02a2a", "open": "#8a5a00",
    "s1": "#2563b8", "s2": "#c2410c", "s3": "#0b7a5c", "s4": "#8e3fb0",
    "s5": "#9a6b00", "s6": "#b8336a", "s7": "#4b5563", "s8": "#0e7490",
}  # fmt: skip
_DARK: Mapping[str, str] = {
    "ground": "#13161b", "panel": "#1b1f26", "line": "#343a46", "ink": "#e6e8ec",
    "soft": "#9ba3b3", "link": "#7db4f5", "good": "#5cc97a", "bad": "#ff8a80", "open": "#e5b455",
    "s1": "#6aa5f2", "s2": "#f2914f", "s3": "#45c29b", "s4": "#c58be0",
    "s5": "#dcb14a", "s6": "#f07fae", "s7": "#a3adbd", "s8": "#4fc3d9",
}  # fmt: skip

_LOG_FROM, _FINE_BELOW = 8.0, 1000.0
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


def _declared(colours: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


COLOURS = (
    f":root {{ color-scheme: light dark; {_declared(LIGHT)} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_declared(_DARK)} }} }}\n"
)
"""CSS that declares every colour as a variable, ``--ink`` for ``ink``."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """A curve.

    Attributes:
        label: Its name in the legend; empty for one that lies faintly behind another.
        points: (x, y), finite, at least one.
        number: Which colour and which mark it has.
        bars: Half the length of the bar of each point, nan for none; empty without bars.
        marked: Whether its points have marks, which are hollow on a dashed curve.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    number: int
    bars: tuple[float, ...] = ()
    marked: bool = False
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Subplot:
    """A pair of axes.

    Attributes:
        series: Its curves, at least one.
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
    """Subplots in rows, with one legend below them if there is a note or several labels.

    Attributes:
        size: Width and height of a subplot, points.
        title: Heading, drawn if the subplots have titles, and the SVG's title.
        described: Text alternative for screen readers.
        note: Above the legend.
        columns: Most subplots in a row.
    """

    subplots: tuple[Subplot, ...]
    size: tuple[float, float]
    title: str
    described: str
    note: str = ""
    columns: int = 3

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

        columns = min(self.columns, len(self.subplots))
        rows = math.ceil(len(self.subplots) / columns)
        width, height = self.size[0] * columns, self.size[1] * rows
        figure = Figure((width / 72, height / 72), layout="constrained")
        for place, subplot in enumerate(self.subplots, start=1):
            _draw(figure.add_subplot(rows, columns, place), subplot)
        if self.subplots[0].title:
            heading = textwrap.fill(self.title, int(width / 8))
            figure.suptitle(heading, x=0.01, ha="left", fontsize=13, fontweight="bold")
        labels = dict.fromkeys(
            s.label for subplot in self.subplots for s in subplot.series if s.label
        )
        if self.note or len(labels) > 1:
            # Of the curves of one label the last, which is solid if any is.
            shown = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
            columns = max(1, int(width / (50 + 6.5 * max(map(len, labels)))))
            figure.legend(
                [shown[label] for label in labels], list(labels), loc="outside lower left",
                ncols=columns, title=textwrap.fill(self.note, int(width / 5)), alignment="left",
            )  # fmt: skip
        return figure


def is_log(values: Sequence[float]) -> bool:
    """Whether positive values span a factor of 8 or more, so that their scale is logarithmic."""
    return min(values) > 0 and max(values) / min(values) >= _LOG_FROM


def _draw(axes: "Axes", subplot: Subplot) -> None:
    from matplotlib.transforms import ScaledTranslation

    axes.set_title(subplot.title)
    axes.set_xlabel(subplot.x_label)
    axes.margins(0.04, 0.06)
    _scale(axes, "x", [x for series in subplot.series for x, _ in series.points], log=subplot.log_x)
    ys = [y for series in subplot.series for _, y in series.points]
    _scale(axes, "y", ys, log=subplot.log_y)
    barred = [series for series in subplot.series if series.bars]
    apart = min(_APART, _ASIDE / len(barred)) if barred else 0.0
    for series in subplot.series:
        # Bars of several curves at the same x would cover each other.
        rank = barred.index(series) - (len(barred) - 1) / 2 if series in barred else 0.0
        aside = ScaledTranslation(rank * apart / 72, 0, axes.figure.dpi_scale_trans)
        _draw_series(axes, series, transform=axes.transData + aside)
    # Curves that are moved aside do not count by themselves.
    axes.update_datalim([place for series in subplot.series for place in _reached(series)])
    axes.autoscale_view()
    if not subplot.log_y and 0 <= min(ys) < 0.35 * max(ys):
        axes.set_ylim(bottom=min(0.0, axes.dataLim.y0))
    if subplot.ticks:
        axes.set_xticks(_with_room(subplot.ticks, axes))


def _draw_series(axes: "Axes", series: Series, *, transform: Any) -> None:  # noqa: ANN401
    colour = LIGHT[f"s{series.number % SERIES + 1}"]
    xs, ys = zip(*series.points, strict=True)
    drawn = axes.errorbar(
        xs, ys, yerr=series.bars or None, color=colour, transform=transform,
        linestyle="--" if series.dashed else "-", alpha=None if series.label else 0.35,
        linewidth=1.0 if series.dashed or not series.label else 1.8, elinewidth=1.0, capsize=3,
        marker=_MARKS[series.number % len(_MARKS)] if series.marked else "", markersize=5.5,
        markerfacecolor=LIGHT["ground"] if series.dashed else colour,
    )  # fmt: skip
    drawn[0].set_label(series.label)


def _reached(series: Series) -> list[tuple[float, float]]:
    """Its points and the ends of its bars."""
    bars = series.bars or itertools.repeat(0.0)
    return [
        (x, y + step)
        for (x, y), bar in zip(series.points, bars, strict=False)
        for step in (0.0, -bar, bar)
        if not math.isnan(step)
    ]


def _scale(axes: "Axes", name: str, values: Sequence[float], *, log: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = axes.xaxis if name == "x" else axes.yaxis
    if log:
        axes.set(**{f"{name}scale": "log"})
        fine = max(values) / min(values) < _FINE_BELOW
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if fine else (1,)))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(value)))


def _tick_text(value: float) -> str:
    return f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e+")


def _with_room(ticks: Sequence[float], axes: "Axes") -> list[float]:
    """The ticks whose labels do not run into the one before."""
    kept, edge = [], -math.inf
    for tick in ticks:
        place = axes.transAxes.inverted().transform(axes.transData.transform((tick, 1.0)))[0]
        half = 0.01 * len(_tick_text(tick))
        if place - half >= edge:
            kept.append(tick)
            edge = place + half + 0.015
    return kept
