"""Verbs that look at several runs: ``a b``, ``run=a run=b`` and ``runs=[a,b]`` mean the same.

Of two overrides of one key Hydra keeps the last, so runs are gathered before Hydra sees them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.config.application import only_shows
from flowexp.config.hydra_internals import argument_parser
from flowexp.config.override_text import override
from flowexp.config.overrides import parse, selected
from flowexp.config.problems import ConfigError
from flowexp.config.run_folders import names_folder, newest, runs_at
from flowexp.errors import UsageError
from flowexp.files import write_text

if TYPE_CHECKING:
    from flowexp.report.run_record import RunRecord

__all__ = ["named_paths", "open_runs", "with_runs", "write_output", "writing_to"]


def with_runs(arguments: Sequence[str], *, verb: str, example: str) -> list[str]:
    """The arguments with all named runs in one override ``runs=[...]``; no sweep is possible.

    ``example`` is a command line of the verb, shown if no run is named.
    """
    args = argument_parser(verb).parse_intermixed_args(list(arguments))
    if args.multirun:
        raise UsageError(f"{verb} looks at all its runs at once.", remedy="Leave out -m.")
    named = [text for text in args.overrides if _names_run(text)]
    as_list = any(text.startswith("runs=") for text in args.overrides)
    if not named:
        if not as_list and not only_shows(args):
            there = ", ".join(map(str, newest()))
            remedy = f"Write {example}." + (f" The newest here: {there}." if there else "")
            raise UsageError(f"{verb} needs at least one run.", key="runs", remedy=remedy)
        return list(arguments)
    if as_list:
        raise UsageError(
            "runs are named in two ways.", key="runs", remedy="Write either runs=[a,b] or run=a."
        )
    runs = [run for text in named for run in _runs_in(text)]
    rest = list(arguments)
    for text in named:
        rest.remove(text)
    return [*rest, override("runs", runs)]


def named_paths(value: Any) -> list[Path]:  # noqa: ANN401 -- what the config holds
    """The runs and files that ``runs`` names; a folder of runs stands for those in it."""
    given = [value] if isinstance(value, str) else list(value or [])
    if not given:
        raise UsageError("no run is named.", key="runs", remedy="Name run directories.")
    paths = [Path(str(text)) for text in given]
    return [run for path in paths for run in runs_at(path)]


def open_runs(paths: Sequence[Path]) -> "list[RunRecord]":
    """Read run directories, each with the size of its network where that is known.

    Nothing that they name is built or imported.
    """
    from flowexp.report.run_record import distinct_names, read_run

    names = distinct_names(paths)
    return [_with_size(read_run(path, name=name)) for path, name in zip(paths, names, strict=True)]


def write_output(path: Path, text: str) -> Path:
    """Write a verb's file, complete or not at all."""
    with writing_to(path):
        return write_text(path, text)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Say where to change a file or folder that ``out`` names and that cannot be written."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror or error}).",
            key="out",
            remedy="Choose another place with out=PATH.",
        ) from error


def _names_run(text: str) -> bool:
    return text.startswith("run=") or names_folder(text)


def _runs_in(text: str) -> list[str]:
    """The runs of one argument: a bare path as it stands, ``run=a,b`` as Hydra reads it."""
    if not text.startswith("run="):
        return [text]
    (parsed, problems) = parse([text])
    if problems:
        raise ConfigError(problems)
    # A name such as 2024-01-01/7 reads as text, a bare 7 as a number.
    return [str(item).strip("'\"") for item in selected(parsed[0])]


def _with_size(record: "RunRecord") -> "RunRecord":
    """As the manifest says; those of older runs do not, but an average holds each parameter."""
    from flowexp.runs.run_directory import RunDirectory
    from flowexp.runs.weights import averaged_parameters

    stated = record.manifest.get("parameters")
    if not isinstance(stated, int):
        stated = averaged_parameters(RunDirectory(record.path))
    return replace(record, parameters=stated)
