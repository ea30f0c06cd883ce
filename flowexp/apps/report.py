"""``flowexp report``: one self-contained HTML file of runs, tables and claims."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowexp.apps.named_runs import named_paths, open_runs, with_runs, write_output
from flowexp.apps.terminal import shown, table
from flowexp.config.application import examine
from flowexp.errors import UsageError

__all__ = ["main"]

_EXAMPLE = "flowexp report DIR"


def main(arguments: Sequence[str]) -> None:
    """Write a report of run directories, folders of them, and JSON files of ``flowexp table``."""
    given = with_runs(arguments, verb="report", example=_EXAMPLE)
    examine("report", _report, given, config_name="report")


def _report(config: dict[str, Any]) -> None:
    from flowexp.report.document import document, read_results

    if config["grids"] < 1:
        raise UsageError(f"grids={config['grids']} is below 1.", key="grids")
    paths = named_paths(config["runs"])
    files = [path for path in paths if path.is_file()]
    folders = [path for path in paths if path not in files]
    results = [result for file in files for result in read_results(file)]
    text = document(open_runs(folders), results=results, grids=config["grids"])
    out = _beside(paths) if config["out"] is None else Path(config["out"])
    write_output(out, text)
    print(table([("report", shown(out)), ("size", f"{len(text.encode()) / 1e6:.2g} MB")]))


def _beside(paths: Sequence[Path]) -> Path:
    """In the run, beside the file, or in the folder that holds all of them."""
    if len(paths) == 1:
        only = paths[0]
        return only.with_suffix(".report.html") if only.is_file() else only / "report.html"
    return Path(os.path.commonpath([path.resolve().parent for path in paths])) / "report.html"
