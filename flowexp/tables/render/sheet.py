"""The sheet that every form draws: a table of texts with notes, and the unrounded numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from flowexp.tables.render.plots import Plot

if TYPE_CHECKING:
    import pandas

__all__ = ["Column", "Form", "Line", "Sheet", "Notes"]

Tone = Literal["plain", "good", "bad", "open"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a sheet.

    Attributes:
        numeric: Whether cells are aligned at the right.
        prose: Whether cells are texts that a narrow terminal may show below the table.
    """

    title: str
    numeric: bool = False
    prose: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a sheet, one text per column.

    Attributes:
        tone: ``bad`` for what failed, ``good`` for what holds, ``open`` for what is missing or
            undecided; forms without colours say it in the text alone, which is complete.
        starts_group: Whether a rule stands above it.
    """

    cells: tuple[str, ...]
    tone: Tone = "plain"
    starts_group: bool = False


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table ready to be drawn.

    Attributes:
        name: For labels and anchors.
        intro: Sentences above the table.
        picture: The same numbers as a chart, for forms that can show it.
        notes: Numbered below the table; cells refer to them as ``[1]``.
        remarks: Below the notes, unnumbered: what the marks mean, the hardware.
        records: The same content with every number on its own, for CSV.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    intro: tuple[str, ...] = ()
    picture: Plot | None = None
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    records: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for line in self.lines:
            if len(line.cells) != len(self.columns):
                raise ValueError(
                    f"sheet {self.name}: {len(line.cells)} cells in {len(self.columns)} columns"
                )

    @property
    def numbered_notes(self) -> tuple[str, ...]:
        """The notes, each with its number before it."""
        return tuple(f"[{number}] {text}" for number, text in enumerate(self.notes, start=1))

    def frame(self, escaped: Callable[[str], str]) -> "pandas.DataFrame":
        """The cells below their headings."""
        import pandas

        cells = [list(map(escaped, line.cells)) for line in self.lines]
        return pandas.DataFrame(cells, columns=[escaped(one.title) for one in self.columns])


@dataclass(frozen=True)
class Form:
    """A way of writing sheets as one text that ends with a newline, and the files' suffix."""

    suffix: str
    draw: Callable[[Sequence[Sheet]], str]


class Notes:
    """Collects notes and numbers them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def refer(self, texts: Iterable[str]) -> str:
        """References to notes, ``[1] [3]``; notes not seen before are added."""
        numbers = {self._numbers.setdefault(text, len(self._numbers) + 1) for text in texts}
        return " ".join(f"[{number}]" for number in sorted(numbers))

    @property
    def texts(self) -> tuple[str, ...]:
        """All notes in the order of their numbers."""
        return tuple(self._numbers)
