"""``flowexp compare``: runs side by side; numbers share a line only if their protocols match."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowexp.apps.named_runs import named_paths, open_runs, with_runs, write_output
from flowexp.apps.terminal import shown
from flowexp.config.application import examine
from flowexp.config.problems import did_you_mean
from flowexp.errors import UsageError

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Print what the configs, scores and costs of runs differ in: ``compare a b out=FILE``."""
    given = with_runs(arguments, verb="compare")
    examine("compare", _compare, given, config_name="compare")


def _compare(config: dict[str, Any]) -> None:
    from flowexp.report.comparison import compare
    from flowexp.tables.render import FORMS, draw

    form = config["format"]
    if form not in FORMS:
        raise UsageError(
            f"there is no format {form!r}.", key="format", remedy=did_you_mean(form, FORMS)
        )
    paths = named_paths(config["runs"])
    if len(paths) < 2:
        raise UsageError(
            f"there is nothing to compare {paths[0]} with.",
            key="runs",
            remedy="Name another run: flowexp compare run=a run=b.",
        )
    text = draw(compare(open_runs(paths)), form)
    if config["out"] is None:
        print(text, end="")
    else:
        try:
            print(f"  comparison  {shown(write_output(Path(config['out']), text))}")
        except UsageError:
            print(text, end="")
            raise
