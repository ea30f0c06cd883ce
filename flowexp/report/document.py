"""The report: one HTML file that needs nothing else."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowexp.errors import UsageError
from flowexp.report.comparison import compare
from flowexp.report.curves import chart, curve_of
from flowexp.report.facts import losses_differ_in
from flowexp.report.run_record import RunRecord
from flowexp.report.run_section import curve_title, run_section
from flowexp.tables.render import sheet_of
from flowexp.tables.render.forms import filled
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
        ValueError: There is nothing to show, or fewer than one grid is requested.
    """
    if not runs and not results:
        raise ValueError("there is neither a run nor a result to show")
    if grids < 1:
        raise ValueError(f"grids={grids}; allowed: integers >= 1")
    several = len(runs) > 1
    names = ", ".join([*(result.name for result in results), *(run.name for run in runs)])
    return filled(
        "report.html",
        package="flowexp.report",
        title=f"{names} - flowexp report",
        contents=[
            *(result.title for result in results),
            *(["Comparison"] if several else []),
            *(run.name for run in runs),
        ],
        results=[sheet_of(result) for result in results],
        comparison=_comparison(runs) if several else None,
        runs=[run_section(run, grids=grids) for run in runs],
    )


def read_results(file: Path) -> list[TableResult | ClaimResult]:
    """The table or the claims that ``flowexp table`` wrote.

    Raises:
        UsageError: The file is none of these.
    """
    try:
        content = json.loads(file.read_text())
        entries = content if isinstance(content, list) else [content]
        kinds = [ClaimResult if "verdict" in entry else TableResult for entry in entries]
        return [kind.from_dict(entry) for kind, entry in zip(kinds, entries, strict=True)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{file} is not a result of flowexp table ({error}).",
            key="runs",
            remedy="Name run directories, or JSON files that flowexp table wrote.",
        ) from error


def _comparison(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Sheets, and losses in one chart if they are the same quantity."""
    losses = [
        chart([curve_of(run.rows, key, label=run.name) for run in runs], title=curve_title(key))
        for key in _LOSSES
    ]
    return {
        "sheets": compare(runs),
        "differing": losses_differ_in(runs),
        "losses": [one for one in losses if one],
    }
