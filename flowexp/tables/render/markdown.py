"""Sheets as Markdown with pipe tables."""

import re
from collections.abc import Sequence

from flowexp.tables.render.sheet import Form, Sheet

__all__ = ["Markdown"]

_SPECIAL = re.compile(r"([\\`*|<>\[\]]|(?<!\w)_|_(?!\w))")
"""Markup characters; an underscore within a word is none."""


class Markdown(Form):
    """GitHub's Markdown."""

    suffix = ".md"

    def draw(self, sheets: Sequence[Sheet]) -> str:
        return "\n\n".join(_sheet(sheet) for sheet in sheets) + "\n"


def _sheet(sheet: Sheet) -> str:
    parts = [f"# {_escaped(sheet.title)}"]
    parts += [_escaped(text) for text in sheet.intro]
    sides = ["right" if column.numeric else "left" for column in sheet.columns]
    parts.append(
        sheet.frame(_escaped).to_markdown(index=False, colalign=sides, disable_numparse=True)
    )
    if sheet.notes:
        numbered = enumerate(sheet.notes, start=1)
        parts.append("\n".join(f"- \\[{number}\\] {_escaped(text)}" for number, text in numbered))
    parts += [_escaped(text) for text in sheet.remarks]
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
