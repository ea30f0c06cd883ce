"""Sheets for a terminal, drawn by rich."""

import io
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flowexp.tables.render.sheet import Form, Sheet

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Terminal"]

_STYLES: Mapping[str, str] = {"plain": "", "good": "green", "bad": "red", "open": "yellow"}
_UNLIMITED = 240


class Terminal(Form):
    """Text with box lines, as wide as the terminal; colours only where a terminal shows them."""

    suffix = ".txt"

    def draw(self, sheets: Sequence[Sheet]) -> str:
        from rich.console import Console

        shows = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if shows else _UNLIMITED
        written = io.StringIO()
        console = Console(
            file=written,
            width=width,
            force_terminal=shows,
            markup=False,
            highlight=False,
            emoji=False,
        )
        for sheet in sheets:
            console.print(sheet.title, style="bold")
            for text in sheet.intro:
                console.print(text)
            console.print(_table(sheet))
            for position, text in enumerate(sheet.notes, start=1):
                console.print(f"[{position}] {text}")
            for text in sheet.remarks:
                console.print(text, style="dim")
            # The table has a blank line below it already.
            if sheet.notes or sheet.remarks:
                console.print()
        return "\n".join(line.rstrip() for line in written.getvalue().splitlines()).rstrip() + "\n"


def _table(sheet: Sheet) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in sheet.columns:
        # Text, because a title such as FD[block 4] would be read as rich's markup.
        drawn.add_column(
            Text(column.title), justify="right" if column.numeric else "left", overflow="fold"
        )
    for number, line in enumerate(sheet.lines):
        if line.starts_group and number:
            drawn.add_section()
        drawn.add_row(*(Text(cell) for cell in line.cells), style=_STYLES[line.tone])
    return drawn
