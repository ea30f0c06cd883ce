"""The report: one HTML file that needs nothing else."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from flowexp.errors import UsageError
from flowexp.report.chart import chart
from flowexp.report.comparison import compare
from flowexp.report.curves import curve_of
from flowexp.report.facts import losses_differ_in
from flowexp.report.run_record import RunRecord
from flowexp.report.run_section import curve_title, run_section
from flowexp.tables.render import sheet_of
from flowexp.tables.render.html import sheet_html
from flowexp.tables.render.page import page
from flowexp.tables.results import ClaimResult, TableResult

__all__ = ["document", "read_results"]

_LOSSES = ("train/loss", "val/loss")


def document(
    runs: Sequence[RunRecord],
    *,
    results: Sequence[TableResult | ClaimResult] = (),
    grids: int = 12,
) -> str:
    """The page.

    Args:
        runs: Runs with distinct names.
        results: Tables and claims to show before the runs.
        grids: Largest number of sample grids of each run.

    Raises:
        ValueError: There is nothing to show, or fewer than one grid is asked for.
    """
    if not runs and not results:
        raise ValueError("there is neither a run nor a result to show")
    if grids < 1:
        raise ValueError(f"grids={grids}; allowed: integers >= 1")
    sections = [(result.title, _result_section(result)) for result in results]
    if len(runs) > 1:
        sections.append(("Comparison", _comparison(runs)))
    sections = [
        (title, f'<section id="part-{number}">\n{body}</section>\n')
        for number, (title, body) in enumerate(sections)
    ]
    for number, run in enumerate(runs, start=len(sections)):
        sections.append((run.name, run_section(run, ident=f"part-{number}", grids=grids)))
    names = ", ".join([*(result.name for result in results), *(run.name for run in runs)])
    body = _head(sections) + "".join(section for _, section in sections)
    return page(f"{names} - flowexp report", body)


def read_results(file: Path) -> list[TableResult | ClaimResult]:
    """The table or the claims that ``flowexp table`` wrote.

    Args:
        file: A JSON file.

    Raises:
        UsageError: The file is none of these.
    """
    try:
        content = json.loads(file.read_text())
        entries = content if isinstance(content, list) else [content]
        return [_result(entry) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{file} is no result of flowexp table ({error}).",
            key="runs",
            remedy="Name run directories, or JSON files that flowexp table wrote.",
        ) from error


def _result(entry: Mapping[str, Any]) -> TableResult | ClaimResult:
    return ClaimResult.from_dict(entry) if "verdict" in entry else TableResult.from_dict(entry)


def _head(sections: Sequence[tuple[str, str]]) -> str:
    head = "<header>\n<h1>flowexp report</h1>\n"
    if len(sections) == 1:
        return head + "</header>\n"
    links = "".join(
        f'<li><a href="#part-{number}">{escape(name)}</a></li>'
        for number, (name, _) in enumerate(sections)
    )
    return f'{head}<nav aria-label="Contents"><ul>{links}</ul></nav></header>\n'


def _result_section(result: TableResult | ClaimResult) -> str:
    return sheet_html(sheet_of(result))


def _comparison(runs: Sequence[RunRecord]) -> str:
    sheets = "".join(sheet_html(sheet, level=3) for sheet in compare(runs))
    return f"<h2>Comparison</h2>\n{sheets}<h3>Loss</h3>\n{_losses(runs)}"


def _losses(runs: Sequence[RunRecord]) -> str:
    """Losses in one chart, if they are the same quantity."""
    differing = losses_differ_in(runs)
    if differing:
        text = f"The losses are different quantities: the runs differ in {', '.join(differing)}."
        return f'<p class="soft">{text}</p>\n'
    figures = [
        chart([curve_of(run.rows, key, label=run.name) for run in runs], title=curve_title(key))
        for key in _LOSSES
    ]
    return f'<div class="charts">\n{"".join(figures)}</div>\n'
