"""Sheets as HTML: a fragment for a page that has others, or a page that needs nothing else."""

import base64
from collections.abc import Sequence
from html import escape

from flowexp.tables.render.page import page
from flowexp.tables.render.plots import Plot
from flowexp.tables.render.sheet import Column, Line, Sheet

__all__ = ["Html", "sheet_html", "svg_image"]


class Html:
    """A self-contained page."""

    suffix = ".html"

    def draw(self, sheets: Sequence[Sheet]) -> str:
        """The sheets on one page."""
        if len(sheets) == 1:
            return page(sheets[0].title, sheet_html(sheets[0], level=1))
        title = "flowexp"
        return page(title, "\n".join([f"<h1>{title}</h1>", *map(sheet_html, sheets)]))


def sheet_html(sheet: Sheet, *, level: int = 2) -> str:
    """A sheet as a fragment.

    Args:
        sheet: What to draw.
        level: Level of its heading.
    """
    head = "".join(
        f'<th scope="col"{_class(column)}>{escape(column.title)}</th>' for column in sheet.columns
    )
    body = "\n".join(_line(line, sheet.columns) for line in sheet.lines)
    intro = "".join(f"<p>{escape(text)}</p>\n" for text in sheet.intro)
    notes = "".join(f"<li>{escape(text)}</li>" for text in sheet.notes)
    remarks = "".join(f"<p>{escape(text)}</p>\n" for text in sheet.remarks)
    picture = f"<figure>\n{svg_image(sheet.picture)}</figure>\n" if sheet.picture else ""
    below = (f"<ol>{notes}</ol>\n" if notes else "") + remarks
    return (
        f"<h{level}>{escape(sheet.title)}</h{level}>\n{intro}"
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(sheet.title)}">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n"
        f'<div class="notes">{below}</div>\n{picture}'
    )


def svg_image(plot: Plot) -> str:
    """A chart within a page."""
    content = base64.b64encode(plot.svg().encode()).decode("ascii")
    alt = escape(f"{plot.title}: {plot.described}")
    return f'<img class="chart" src="data:image/svg+xml;base64,{content}" alt="{alt}">\n'


def _line(line: Line, columns: Sequence[Column]) -> str:
    classes = " ".join(filter(None, [line.tone, "group" if line.starts_group else ""]))
    first, *rest = zip(columns, line.cells, strict=True)
    cells = f'<th scope="row"{_class(first[0])}>{escape(first[1])}</th>' + "".join(
        f"<td{_class(column)}>{_cell(cell)}</td>" for column, cell in rest
    )
    return f'<tr class="{classes}">{cells}</tr>'


def _cell(text: str) -> str:
    """A number stays on one line with its spread and its marks; the rest may be wrapped."""
    kept = escape(text).replace(" ± ", "\u00a0±\u00a0")
    return kept.replace(" ‡", "\u00a0‡").replace(" †", "\u00a0†")


def _class(column: Column) -> str:
    return ' class="number"' if column.numeric else ""
