"""Where golden cases come from.

``$FLOWEXP_GOLDENS/<folder>/`` when the variable is set, else ``tests/goldens/data/<folder>/``.
Files ending in ``_expected.npz`` or ``_state.npz`` belong to the case of the same stem.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

_KEPT = Path(__file__).parent / "data"
_COMPANIONS = ("_expected.npz", "_state.npz")


def cases(folder: str) -> list[Path]:
    """All case files of one family, sorted by name; an absent folder is an error."""
    root = Path(os.environ.get("FLOWEXP_GOLDENS", _KEPT)) / folder
    files = sorted(p for p in root.iterdir() if p.is_file() and p.suffix.lower() != ".md")
    return [p for p in files if not p.name.endswith(_COMPANIONS)]


def parametrize(folder: str) -> pytest.MarkDecorator:
    """One test per case file, with the file's stem as its id."""
    found = cases(folder)
    return pytest.mark.parametrize("case", found, ids=[p.stem for p in found])


def dispatch(case: Path, checks: Mapping[str, Callable[[Path], None]]) -> None:
    """Run the check with the longest name prefix that matches; a file without one fails."""
    matching = [prefix for prefix in checks if case.name.startswith(prefix)]
    if not matching:
        pytest.fail(f"no check for golden case {case.name}; known kinds: {sorted(checks)}")
    checks[max(matching, key=len)](case)
