"""``flowexp compare``: runs side by side; numbers share a line only if their protocols match."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowexp.apps.named_runs import named_paths, open_runs, with_runs, write_output
from flowexp.apps.terminal import shown
from flowexp.config.application import examine
from flowexp.config.override_text import sweep
from flowexp.config.problems import did_you_mean
from flowexp.errors import UsageError

__all__ = ["main"]

_PRINTED = "terminal"
_EXAMPLE = "flowexp compare run=a run=b, or flowexp compare SWEEPDIR"


def main(arguments: Sequence[str]) -> None:
    """Print differing config values, scores and costs of runs: ``compare a b out=FILE``.

    Runs that differ only in their training seed share a line of scores. ``out=runs.csv`` writes one
    row per run and evaluation, for ``pandas.read_csv("runs.csv")``.
    """
    given = with_runs(arguments, verb="compare", example=_EXAMPLE)
    examine("compare", _compare, given, config_name="compare")


def _compare(config: dict[str, Any]) -> None:
    from flowexp.report.comparison import compare
    from flowexp.tables.render import FORMS, draw

    form = config["format"] or _form_of(config["out"])
    if form not in FORMS:
        raise UsageError(
            f"there is no format {form!r}.", key="format", remedy=did_you_mean(form, FORMS)
        )
    paths = named_paths(config["runs"])
    if len(paths) < 2:
        open_runs(paths)
        raise UsageError(
            f"there is nothing to compare {paths[0]} with.",
            key="runs",
            remedy="Name another run: flowexp compare run=a run=b.",
        )
    runs = open_runs(paths)
    sheets = compare(runs)
    if config["out"] is None:
        print(draw(sheets, form), end="")
        if not any(run.evaluations for run in runs):
            _name_eval(config["runs"])
        return
    text = draw(sheets, form)
    try:
        print(f"  comparison  {shown(write_output(Path(config['out']), text))}")
    except UsageError:
        print(text, end="")
        raise


def _name_eval(given: str | list[str]) -> None:
    """Print the command that scores the runs, by their folder or by name."""
    names = [given] if isinstance(given, str) else given
    several = [] if len(names) == 1 else ["-m"]
    words = ["flowexp", "eval", sweep("run", names), *several]
    print(f"\nTo score them: {shlex.join(words)}")


def _form_of(out: str | None) -> str:
    """The format for the suffix of a file, by default that of the terminal."""
    from flowexp.tables.render import FORMS

    suffix = Path(out or "").suffix.lower()
    return next((name for name, form in FORMS.items() if form.suffix == suffix), _PRINTED)
