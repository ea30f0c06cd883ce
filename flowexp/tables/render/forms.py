"""The forms of text in which sheets are written."""

import base64
import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowexp.tables.render.plots import COLOURS, Plot
from flowexp.tables.render.sheet import Sheet

if TYPE_CHECKING:
    from jinja2 import Environment


__all__ = ["csv", "filled", "html", "latex", "markdown"]

_HERE = "flowexp.tables.render"
# An underscore within a word is no markup.
_MARKDOWN = re.compile(r"([\\`*|<>\[\]]|(?<!\w)_|_(?!\w))")
_LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "→": r"$\rightarrow$",
    "\u00d7": r"$\times$",
    "\u03b1": r"$\alpha$",
    "\u03c3": r"$\sigma$",
    "∞": r"$\infty$",
    "\u2013": "--",
}
_LATEX_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


def markdown(sheets: Sequence[Sheet]) -> str:
    """GitHub's Markdown, with pipe tables."""
    return "\n\n".join(map(_markdown_sheet, sheets)) + "\n"


def _markdown_sheet(sheet: Sheet) -> str:
    def escaped(text: str) -> str:
        return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))

    sides = ["right" if column.numeric else "left" for column in sheet.columns]
    table = sheet.frame(escaped).to_markdown(index=False, colalign=sides, disable_numparse=True)
    parts = [f"# {escaped(sheet.title)}", *map(escaped, sheet.intro), table]
    if sheet.notes:
        parts.append("\n".join(f"- {escaped(text)}" for text in sheet.numbered_notes))
    return "\n\n".join([*parts, *map(escaped, sheet.remarks)])


def latex(sheets: Sequence[Sheet]) -> str:
    r"""One ``table`` environment a sheet in the style of booktabs; any engine, UTF-8."""
    return "% needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs}\n" + "\n".join(
        map(_latex_sheet, sheets)
    )


def _latex_sheet(sheet: Sheet) -> str:
    caption = ". ".join(text.rstrip(".") for text in (sheet.title, *sheet.intro)) + "."
    label = re.sub(r"[^a-z0-9]+", "-", sheet.name.lower()).strip("-")
    spec = "".join("r" if column.numeric else "l" for column in sheet.columns)
    frame = sheet.frame(lambda cell: _protected(_latex_escaped(cell)))
    rules = ["\\midrule\n" * (one.starts_group and n > 0) for n, one in enumerate(sheet.lines)]
    first = [str(cell) for cell in frame.iloc[:, 0]]
    frame.isetitem(0, [rule + cell for rule, cell in zip(rules, first, strict=True)])
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{_latex_escaped(caption)}}}",
        rf"\label{{tab:{label}}}",
        frame.to_latex(index=False, escape=False, column_format=spec).rstrip(),
    ]
    below = [*sheet.numbered_notes, *sheet.remarks]
    lines += [rf"\par\smallskip\footnotesize {_latex_escaped(text)}" for text in below]
    return "\n".join([*lines, r"\end{table}", ""])


def _protected(cell: str) -> str:
    r"""A cell that starts with ``[`` would be read as an argument of ``\\`` or ``\midrule``."""
    return f"{{{cell}}}" if cell.startswith(("[", "*")) else cell


def _latex_escaped(text: str) -> str:
    return _LATEX_SPECIAL.sub(lambda found: _LATEX[found.group()], " ".join(text.split()))


def csv(sheets: Sequence[Sheet]) -> str:
    """One header and the records of all sheets: every number on its own, nothing rounded."""
    import pandas

    records = [record for sheet in sheets for record in sheet.records]
    names = _names(records)
    cells = [[_plain(record.get(name)) for name in names] for record in records]
    # As objects, because a column of counts with gaps would become one of floats.
    frame = pandas.DataFrame(cells, columns=names, dtype=object)
    return frame.to_csv(index=False, lineterminator="\n")


def _names(records: Sequence[Any]) -> list[str]:
    """All keys, each in the place that it has in its records."""
    names: list[str] = []
    for record in records:
        place = 0
        for key in record:
            if key in names:
                place = names.index(key) + 1
            else:
                names.insert(place, key)
                place += 1
    return names


def _plain(value: Any) -> Any:  # noqa: ANN401 -- any value of a record
    """Lower-case words for truth."""
    return str(value).lower() if isinstance(value, bool) else value


def html(sheets: Sequence[Sheet]) -> str:
    """A self-contained page, light or dark as the browser prefers; nothing is fetched."""
    title = sheets[0].title if len(sheets) == 1 else "flowexp"
    return filled("sheets.html", title=title, sheets=sheets)


def filled(template: str, *, package: str = _HERE, **values: Any) -> str:  # noqa: ANN401
    """A page from a file in the folder ``templates`` of a package; every value is escaped.

    It can also use the templates of this package.
    """
    return _environment(package).get_template(template).render(colours=COLOURS, **values)


@functools.cache
def _environment(package: str) -> "Environment":
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, _HERE))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(data_uri=_data_uri, unbroken=_unbroken)
    return environment


def _data_uri(plot: Plot) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(plot.svg().encode()).decode('ascii')}"


def _unbroken(text: str) -> str:
    """Keeps a number on one line with its spread and marks."""
    for mark in "±‡†":
        text = text.replace(f" {mark}", f"\u00a0{mark}")
    return text.replace("± ", "±\u00a0")
