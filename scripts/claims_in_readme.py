"""Writes the measured claims into the README, between its two marks.

    python scripts/claims_in_readme.py

A row is a claim: what was measured, its arms, and the verdict of the claim's own test.
"""

import argparse
import re
from pathlib import Path

from flowexp.files import write_text
from flowexp.report.document import read_results
from flowexp.tables.render.cells import measured_cell, titles
from flowexp.tables.render.numbers import p_text
from flowexp.tables.results import ClaimResult, RowResult

FIRST, LAST = "<!-- claims -->", "<!-- /claims -->"
_TABLE = re.compile(f"{FIRST}.*?{LAST}", re.DOTALL)


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


def _quantity(arms: tuple[RowResult, ...]) -> str:
    """What was measured on what, without the details of the protocol."""
    measured = next(iter(titles(arms)), "")
    short = re.sub(r"\[([^],]*)[^]]*\]", r"[\1]", measured)
    return re.sub(r", relative to .*", ", relative", short)


def _arm(arm: RowResult) -> str:
    return f"{arm.label}: {measured_cell(arm)}"


def _verdict(claim: ClaimResult) -> str:
    if claim.verdict == "missing":
        return claim.verdict
    p = p_text(claim.p_value)
    return f"{claim.verdict}, p {p if p.startswith('<') else f'= {p}'}"


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
