"""Writes the measured claims into the README and the index of the tables, between two marks.

    python scripts/claims_in_readme.py

``<!-- claims: NAME ... -->`` selects some of them, ``<!-- claims -->`` all.

A row is a claim: what was measured, its arms, and the verdict of the claim's own test.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from flowexp.files import write_text
from flowexp.report.document import read_results
from flowexp.tables.render.cells import measured_cell, p_text, titles
from flowexp.tables.results import ClaimResult, RowResult

FIRST, LAST = "<!-- claims -->", "<!-- /claims -->"
_TABLE = re.compile(f"(<!-- claims(?:: ([^>]*))? -->).*?{LAST}", re.DOTALL)
FILES = (Path("README.md"), Path("outputs/tables/README.md"))


def table(folder: Path, names: Sequence[str] = ()) -> str:
    """The claims of ``folder/claim*.json`` by name, or those of these names, as Markdown."""
    found = [result for file in folder.glob("claim*.json") for result in read_results(file)]
    claims = sorted(
        (
            result
            for result in found
            if isinstance(result, ClaimResult) and (not names or result.name in names)
        ),
        key=lambda c: c.name,
    )
    lines = ["| claim | measured | rival | claimed better | verdict |", "| --- " * 5 + "|"]
    lines += [
        f"| {claim.name} | {_quantity(claim.arms)} | {_arm(claim.arms[0])} | "
        f"{_arm(claim.arms[-1])} | {_verdict(claim)} |"
        for claim in claims
    ]
    return "\n".join(lines)


def _quantity(arms: tuple[RowResult, ...]) -> str:
    """Metric and data, without the details of the protocol."""
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


def written(text: str, folder: Path) -> str:
    """A text with today's table between the marks.

    Raises:
        ValueError: The marks are missing, or a claim they name has no result.
    """
    found = _TABLE.search(text)
    if not found:
        raise ValueError(f"the text has no {FIRST} ... {LAST}")
    names = (found[2] or "").split()
    block = table(folder, names)
    missing = [name for name in names if f"| {name} |" not in block]
    if missing:
        raise ValueError(f"there are no results of the claims {missing}")
    return _TABLE.sub(lambda _: f"{found[1]}\n{block}\n{LAST}", text)


def main() -> None:
    """Rewrite the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=Path, default=Path("outputs/tables"))
    given = parser.parse_args()
    for file in FILES:
        write_text(file, written(file.read_text(encoding="utf-8"), given.tables))


if __name__ == "__main__":
    main()
