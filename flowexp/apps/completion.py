"""flowexp completion SHELL: Tab completes verbs, groups, options, keys and runs.

eval "$(flowexp completion bash)"     in ~/.bashrc
eval "$(flowexp completion zsh)"      in ~/.zshrc, below compinit
flowexp completion fish | source      in ~/.config/fish/config.fish
"""

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowexp.apps import VERBS
from flowexp.config.completion_scripts import SCRIPTS
from flowexp.config.hydra_internals import argument_parser
from flowexp.config.loader import RunAwareLoader, search_path
from flowexp.config.overrides import all_groups, groups_of_folders, in_full, options_of
from flowexp.config.run_folders import is_run, usual_runs
from flowexp.errors import UsageError
from flowexp.tree import select

__all__ = ["candidates", "main"]

_CONFIGS = {"check": "train", "table": "table_run"}
"""Verbs whose primary config has another name."""

_RUN_KEYS = ("run", "runs", "from", "init", "teacher", "recipe")


def main(arguments: Sequence[str]) -> None:
    """Print the script that a shell evaluates, or the candidates for a command line.

    Args:
        arguments: ``bash``, ``zsh`` or ``fish``; or ``query LINE WORD``: the command line up to the
            cursor, and the word before the cursor as the shell splits it.
    """
    match list(arguments):
        case [shell] if shell in SCRIPTS:
            print(SCRIPTS[shell])
        case ["query", line, word]:
            _answer(line, word)
        case given:
            raise UsageError(
                f"unknown shell {' '.join(given)!r}." if given else "completion needs a shell.",
                remedy=f"Write flowexp completion {'|'.join(SCRIPTS)}.",
            )


def _answer(line: str, shells_word: str) -> None:
    """Print the candidates for a line, without the part before the shell's own word.

    Bash ends words at ``=`` and ``:``.
    """
    words = _words(line)
    word = words.pop() if words and not line.endswith(" ") else ""
    given = "" if shells_word in ("=", ":") else shells_word
    known = len(word) - len(given) if word.endswith(given) else 0
    for text in candidates(words[1:], word):
        if shlex.quote(text.strip()) == text.strip():  # others would need quotes
            print(text[known:])


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # within quotes
        return line.split()


def candidates(words: Sequence[str], word: str) -> list[str]:
    """The completions of a word; a complete argument ends in a space.

    Args:
        words: The arguments before it; the first is the verb.
        word: The part that has been typed.
    """
    if not words:
        found: Iterable[str] = (f"{verb} " for verb in VERBS)
    else:
        found = _arguments(words[0], list(words[1:]), word)
    return sorted({text for text in found if text.startswith(word)})


def _arguments(verb: str, given: list[str], word: str) -> Iterator[str]:
    name = _CONFIGS.get(verb, verb)
    args, _ = argument_parser(verb).parse_known_intermixed_args(given)
    loader = RunAwareLoader(search_path(args.config_dir))
    if verb == "completion":
        yield from (f"{shell} " for shell in SCRIPTS)
    elif verb == "list":
        yield from (f"{group} " for group in all_groups(loader.repository))
    elif loader.repository.config_exists(name):
        key, equals, value = word.partition("=")
        if verb == "table" and not given:
            names = [n for kind in ("table", "claim") for n in options_of(kind, loader.repository)]
            yield from (f"{table} " for table in ("list", "claims", *names))
        config = _composed(loader, name, in_full(verb, args.overrides))
        if equals:
            full = in_full(verb, [word])[0].partition("=")[0]
            yield from (f"{key}={text}" for text in _values(full, value, config, loader))
        else:
            yield from _keys(word, config)
            yield from _paths(word)


def _composed(loader: RunAwareLoader, name: str, overrides: list[str]) -> Mapping[str, Any]:
    """The config with the typed overrides, or without them if they are invalid."""
    for choices in (overrides, []):
        with suppress(HydraException, OmegaConfBaseException, UsageError):
            config: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
                loader.compose(name, choices), resolve=False
            )
            return config
    return {}


def _keys(word: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Groups, and keys one level at a time."""
    start, dot, _ = word.rpartition(".")
    node = select(config, start) if dot else config
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if not key.startswith("_") and key != "hydra":
            yield f"{start}{dot}{key}{'.' if isinstance(value, Mapping) and value else '='}"
    chosen = select(config, "hydra.runtime.choices") or {}
    yield from (f"{group}=" for group in chosen if not group.startswith("hydra/"))


def _values(
    key: str, typed: str, config: Mapping[str, Any], loader: RunAwareLoader
) -> Iterator[str]:
    """Options of a group, runs, true and false, the current value, files."""
    before, comma, last = typed.rpartition(",")
    if loader.repository.group_exists(key):
        options = options_of(key, loader.repository)
        yield from (f"{before}{comma}{option} " for option in options)
        if key in groups_of_folders():
            found = [] if last else [f"{run} " for run in usual_runs()]
            yield from (f"{before}{comma}{path}" for path in (*found, *_paths(last)))
        return
    if key in _RUN_KEYS and not last:
        yield from (f"{before}{comma}{run} " for run in usual_runs())
    node = select(config, key)
    if isinstance(node, bool):
        yield from ("true ", "false ")
    elif node is None or isinstance(node, str):
        yield from (f"{before}{comma}{path}" for path in _paths(last))
    elif isinstance(node, int | float):
        yield f"{node} "


def _paths(typed: str) -> Iterator[str]:
    """Files and folders; a run directory ends the argument."""
    folder, slash, start = typed.rpartition("/")
    with suppress(OSError):
        for entry in os.scandir(f"{folder}{slash}" or "."):
            if entry.name.startswith(start) and (start or not entry.name.startswith(".")):
                is_open = entry.is_dir() and not is_run(Path(entry))
                yield f"{folder}{slash}{entry.name}{'/' if is_open else ' '}"
