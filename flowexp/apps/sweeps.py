"""Sweeps over trainings and runs: the commands to run next, and the runs in a sweep directory."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from flowexp.apps.terminal import shown, table
from flowexp.config.application import only_shows
from flowexp.config.hydra_internals import argument_parser
from flowexp.config.override_text import command, command_on, override, sweep
from flowexp.config.overrides import in_full
from flowexp.config.run_folders import runs_at
from flowexp.config.sources import runs_in
from flowexp.config.sweep import Sweep
from flowexp.config.trust import must_be_declared

__all__ = ["after_scoring", "after_training", "for_every_run"]


def after_training(swept: Sweep) -> None:
    """Print the commands that score and compare the runs of a sweep."""
    folder = shown(swept.directory)
    count = f"{len(swept.done)} of {len(swept.jobs)} runs trained"
    rows = [("sweep", f"{count}, in {folder}")]
    if not any((job.directory / "results.json").is_file() for job in swept.done):
        trust = must_be_declared(swept.done[0].config)
        rows.append(("score", command("eval", trust=trust, run=folder)))
    if len(swept.jobs) > 1:
        rows.append(("compare", command_on("compare", folder)))
    print("\n" + table(rows))


def after_scoring(swept: Sweep) -> None:
    """Print the command that compares the runs that a sweep has scored."""
    runs = list(dict.fromkeys(str(job.config["run"]) for job in swept.jobs))
    folders = {Path(run).parent for run in runs}
    rows = [("scored", f"{len(swept.done)} of {len(swept.jobs)} evaluations")]
    if len(runs) > 1 and len(folders) == 1:
        rows.append(("compare", command_on("compare", shown(folders.pop()))))
    elif len(runs) > 1:
        rows.append(("compare", command("compare", runs=[shown(Path(run)) for run in runs])))
    print("\n" + table(rows))


def for_every_run(verb: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments with folders of runs replaced by a sweep over their runs, and these runs.

    The runs are empty if a single run is named. A sweep over the runs of one folder writes below
    that folder.
    """
    args = argument_parser(verb).parse_intermixed_args(list(arguments))
    given = in_full(verb, args.overrides)
    named = runs_in([text for text in given if text.startswith("run=")])
    if not named or only_shows(args) or any(text.startswith("recipe=") for text in given):
        return list(arguments), []
    runs = [str(run) for name in named for run in runs_at(Path(name))]
    if runs == named and (args.multirun or len(runs) == 1):
        return list(arguments), runs if len(runs) > 1 else []
    rest = list(arguments)
    for text in set(args.overrides) - set(given) | {t for t in given if t.startswith("run=")}:
        if text in rest:
            rest.remove(text)
    folder = Path(named[0])
    if len(named) == 1 and not any(text.startswith("dirs.sweep=") for text in given):
        stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
        rest.append(override("dirs.sweep", str(folder / verb / stamp)))
    several = [] if args.multirun or len(runs) == 1 else ["-m"]
    return [sweep("run", runs), *rest, *several], runs
