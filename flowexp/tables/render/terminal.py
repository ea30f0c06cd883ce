"""Sheets as text for a terminal or a log."""

import io
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from flowexp.tables.render.sheet import Line, Sheet

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["terminal"]

_STYLES: Mapping[str, str] = {"plain": "", "good": "green", "bad": "red", "open": "yellow"}
_BESIDE = 2
"""Padding of every cell, in columns."""
_PROSE = 18
"""Minimum width, in columns, of a readable sentence."""


def terminal(sheets: Sequence[Sheet]) -> str:
    """Text with box lines, as wide as the terminal, or 80 columns without one.

    Words are never broken. Where the columns need more, those of texts stand above the lines of a
    group. Colours are used only where a terminal shows them.
    """
    from rich.console import Console

    width, written = shutil.get_terminal_size().columns, io.StringIO()
    console = Console(
        file=written,
        width=width,
        force_terminal=sys.stdout.isatty(),
        markup=False,
        highlight=False,
        emoji=False,
    )
    for sheet in sheets:
        shown, aside = _shared_out(sheet, width)
        widths = _widths(sheet, shown, width)
        console.print(sheet.title, style="bold")
        for text in sheet.intro:
            console.print(text)
        for lines in _groups(sheet) if aside else [sheet.lines]:
            for text in _above(sheet, lines, aside):
                console.print(text)
            console.width = max(width, sum(widths.values()) + _BESIDE * len(widths))
            console.print(_table(sheet, lines, widths) if lines else "")
            console.width = width
        for text in sheet.numbered_notes:
            console.print(text)
        for text in sheet.remarks:
            console.print(text, style="dim")
        # The table already ends in a blank line.
        if sheet.notes or sheet.remarks:
            console.print()
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()).rstrip() + "\n"


def _groups(sheet: Sheet) -> list[tuple[Line, ...]]:
    """The lines that belong together."""
    starts = [n for n, line in enumerate(sheet.lines) if line.starts_group and n]
    return [sheet.lines[a:b] for a, b in pairwise([0, *starts, len(sheet.lines)])]


def _texts(sheet: Sheet, number: int) -> list[str]:
    """Title and cells of a column."""
    return [sheet.columns[number].title, *(line.cells[number] for line in sheet.lines)]


def _least(sheet: Sheet, number: int) -> int:
    """The minimum width of a column that breaks no word."""
    words = chain.from_iterable(text.split() for text in _texts(sheet, number))
    return max(map(len, words), default=0)


def _wanted(sheet: Sheet, number: int) -> int:
    """The width at which a column can be read well."""
    longest = max(map(len, _texts(sheet, number)))
    return max(_least(sheet, number), min(longest, _PROSE))


def _widths(sheet: Sheet, numbers: Sequence[int], width: int) -> dict[int, int]:
    """The widths of columns: their minimum, and the spare width for those that need least more."""
    found = {number: _least(sheet, number) for number in numbers}
    longest = {number: max(map(len, _texts(sheet, number))) for number in numbers}
    spare = max(0, width - _BESIDE * len(found) - sum(found.values()))
    for number in sorted(numbers, key=lambda number: longest[number] - found[number]):
        more = min(spare, longest[number] - found[number])
        found[number] += more
        spare -= more
    return found


def _shared_out(sheet: Sheet, width: int) -> tuple[list[int], list[int]]:
    """The positions of the columns in the table, and of those shown above it."""
    shown, aside = list(range(len(sheet.columns))), list[int]()
    while sum(_wanted(sheet, number) + _BESIDE for number in shown) > width:
        prose = [number for number in shown if sheet.columns[number].prose]
        if not prose:
            break
        longest = max(prose, key=lambda number: sum(map(len, _texts(sheet, number))))
        shown.remove(longest)
        aside.append(longest)
    return shown, sorted(aside)


def _above(sheet: Sheet, lines: Sequence[Line], numbers: Sequence[int]) -> Iterator[str]:
    """The columns shown above some lines, as text."""
    for number in numbers:
        title = sheet.columns[number].title
        names: dict[str, list[str]] = {}
        for line in lines:
            if line.cells[number]:
                names.setdefault(line.cells[number], []).append(line.cells[0])
        if len(names) > 1:
            yield f"{title}: " + "; ".join(
                f"{text} ({', '.join(of)})" for text, of in names.items()
            )
        elif names and next(iter(names)) != sheet.title:
            yield f"{title}: {next(iter(names))}"


def _table(sheet: Sheet, lines: Sequence[Line], widths: Mapping[int, int]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, width in widths.items():
        column = sheet.columns[number]
        # Text, because a title such as FD[block 4] would be read as rich's markup.
        drawn.add_column(
            Text(column.title),
            justify="right" if column.numeric else "left",
            overflow="fold",
            width=width,
        )
    for position, line in enumerate(lines):
        if line.starts_group and position:
            drawn.add_section()
        cells = (Text(line.cells[number]) for number in widths)
        drawn.add_row(*cells, style=_STYLES[line.tone])
    return drawn
