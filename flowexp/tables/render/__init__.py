"""Tables and claims as text: terminal, Markdown, LaTeX, CSV, HTML.

A result becomes a :class:`Sheet`, which knows what may stand in one column; a form draws sheets and
knows nothing of results. A new form is one function and one entry of ``FORMS``.
"""

from collections.abc import Mapping, Sequence

from flowexp.tables.render.forms import csv, html, latex, markdown
from flowexp.tables.render.over_nfe import table_picture
from flowexp.tables.render.result_sheets import claims_sheet, table_sheet
from flowexp.tables.render.sheet import Form, Sheet
from flowexp.tables.render.terminal import terminal
from flowexp.tables.results import ClaimResult, TableResult

__all__ = ["FORMS", "Form", "Sheet", "draw", "render", "sheet_of", "table_picture"]

FORMS: Mapping[str, Form] = {
    "terminal": Form(".txt", terminal),
    "markdown": Form(".md", markdown),
    "latex": Form(".tex", latex),
    "csv": Form(".csv", csv),
    "html": Form(".html", html),
}


def render(result: TableResult | ClaimResult | Sequence[ClaimResult], form: str) -> str:
    """A table or claims as text; see :func:`draw`."""
    return draw([sheet_of(result)], form)


def draw(sheets: Sequence[Sheet], form: str) -> str:
    """Sheets as text.

    Raises:
        ValueError: There is no such form.
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r}; allowed: {', '.join(FORMS)}")
    return FORMS[form].draw(sheets)


def sheet_of(result: TableResult | ClaimResult | Sequence[ClaimResult]) -> Sheet:
    """The sheet of a table, a claim or several claims."""
    if isinstance(result, TableResult):
        return table_sheet(result)
    return claims_sheet([result] if isinstance(result, ClaimResult) else result)
