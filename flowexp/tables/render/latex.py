"""Sheets as LaTeX tables in the style of booktabs; any engine, UTF-8."""

import re
from collections.abc import Mapping, Sequence

from flowexp.tables.render.sheet import Form, Sheet

__all__ = ["Latex"]

_ESCAPES: Mapping[str, str] = {
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
_SPECIAL = re.compile("|".join(map(re.escape, _ESCAPES)))


class Latex(Form):
    r"""One ``table`` environment a sheet; needs ``\usepackage{booktabs}``."""

    suffix = ".tex"

    def draw(self, sheets: Sequence[Sheet]) -> str:
        return "% needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs}\n" + "\n".join(
            _sheet(sheet) for sheet in sheets
        )


def _sheet(sheet: Sheet) -> str:
    caption = ". ".join(text.rstrip(".") for text in (sheet.title, *sheet.intro)) + "."
    label = re.sub(r"[^a-z0-9]+", "-", sheet.name.lower()).strip("-")
    spec = "".join("r" if column.numeric else "l" for column in sheet.columns)
    frame = sheet.frame(lambda cell: _protected(_escaped(cell)))
    rules = ["\\midrule\n" * (one.starts_group and n > 0) for n, one in enumerate(sheet.lines)]
    first = [str(cell) for cell in frame.iloc[:, 0]]
    frame.isetitem(0, [rule + cell for rule, cell in zip(rules, first, strict=True)])
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{_escaped(caption)}}}",
        rf"\label{{tab:{label}}}",
        frame.to_latex(index=False, escape=False, column_format=spec).rstrip(),
    ]
    numbered = [f"[{number}] {text}" for number, text in enumerate(sheet.notes, start=1)]
    below = [*numbered, *sheet.remarks]
    lines += [rf"\par\smallskip\footnotesize {_escaped(text)}" for text in below]
    return "\n".join([*lines, r"\end{table}", ""])


def _protected(cell: str) -> str:
    r"""A cell that starts with ``[`` would be read as an argument of ``\\`` or ``\midrule``."""
    return f"{{{cell}}}" if cell.startswith(("[", "*")) else cell


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: _ESCAPES[found.group()], " ".join(text.split()))
