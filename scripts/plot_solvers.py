"""Draws what claims measured over network evaluations: one curve per arm, as SVG or PNG.

The arms of claims that differ only in their number of evaluations become curves; arms measured with
another budget or metric get axes of their own.

    python scripts/plot_solvers.py outputs/tables/claim_dpm_solver_v3_*_cpu.json --out FILE.svg
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flowexp.errors import UsageError
from flowexp.files import write_bytes, write_text
from flowexp.report.document import read_results
from flowexp.tables.render.over_nfe import claim_panels, picture
from flowexp.tables.results import ClaimResult


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; 2 if the files cannot be drawn.

    Args:
        arguments: Of the command line; None for those of this process.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="JSON files of flowexp table claim=...")
    parser.add_argument("--out", type=Path, default=Path("outputs/tables/solvers_over_nfe.svg"))
    parser.add_argument("--title", default="Solvers over network evaluations")
    given = parser.parse_args(arguments)
    try:
        results = [result for file in given.files for result in read_results(file)]
        claims = [result for result in results if isinstance(result, ClaimResult)]
        drawn = picture(claim_panels(claims), title=given.title)
    except (UsageError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if not drawn:
        print("no arm was measured at three numbers of evaluations", file=sys.stderr)
        return 2
    if given.out.suffix == ".png":
        print(write_bytes(given.out, drawn.png()))
    else:
        print(write_text(given.out, drawn.svg()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
