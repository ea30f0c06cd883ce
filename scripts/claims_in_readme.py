"""Writes the measured claims into the README, between its two marks.

    python scripts/claims_in_readme.py

A row is a claim: what was measured, its arms, and the verdict of the claim's own test.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from flowexp.checkpoints.atomic import write_text
from flowexp.report.document import read_results
from flowexp.tables.results import ClaimResult, RowResult

FIRST, LAST = "<!-- claims -->", "<!-- /claims -->"
_TABLE = re.compile(f"{FIRST}.*?{LAST}", re.DOTALL)
_WHOLE_NUMBERS = 100.0


def table(folder: Path) -> str:
    """The claims of ``folder/claim_*.json`` by name, as a Markdown table."""
    found = [result for file in folder.glob("claim_*.json") for result in read_results(file)]
    claims = sorted(
        (result for result in found if isinstance(result, ClaimResult)), key=lambda c: c.name
    )
    lines = ["| claim | measured | rival | claimed better | verdict |", "| --- " * 5 + "|"]
    lines += [
        f"| {claim.name} | {_quantity(claim.arms)} | {_arm(claim.arms[0])} | "
        f"{_arm(claim.arms[-1])} | {_verdict(claim)} |"
        for claim in claims
    ]
    return "\n".join(lines)


def _quantity(arms: Sequence[RowResult]) -> str:
    """What was measured on what, without the details of the protocol."""
    measured = [arm.measured.title for arm in arms if arm.measured is not None]
    if not measured:
        return ""
    short = re.sub(r"\[([^],]*)[^]]*\]", r"[\1]", measured[0])
    return re.sub(r", relative to .*", ", relative", short)


def _arm(arm: RowResult) -> str:
    if arm.measured is None:
        return f"{arm.label}: missing"
    mean, spread = arm.measured.mean, arm.measured.spread
    if abs(mean) >= _WHOLE_NUMBERS:
        return f"{arm.label}: {mean:,.0f} ± {spread:,.0f}"
    return f"{arm.label}: {mean:.3g} ± {spread:.1g}"


def _verdict(claim: ClaimResult) -> str:
    if claim.verdict == "missing":
        return claim.verdict
    p = claim.p_value
    return f"{claim.verdict}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"


def written(readme: str, folder: Path) -> str:
    """The README's text with today's table between the marks.

    Raises:
        ValueError: The marks are missing.
    """
    if not _TABLE.search(readme):
        raise ValueError(f"the README has no {FIRST} ... {LAST}")
    block = f"{FIRST}\n{table(folder)}\n{LAST}"
    return _TABLE.sub(lambda _: block, readme)


def main() -> None:
    """Rewrite the README."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--tables", type=Path, default=Path("outputs/tables"))
    given = parser.parse_args()
    write_text(given.readme, written(given.readme.read_text(encoding="utf-8"), given.tables))


if __name__ == "__main__":
    main()
