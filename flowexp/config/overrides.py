"""Command-line overrides held against the groups, options and keys that exist."""

import dataclasses
import functools
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from omegaconf import ListConfig, OmegaConf

from flowexp.config import conf_dir
from flowexp.config.hydra_internals import ConfigRepository, Repository
from flowexp.config.override_text import override as written
from flowexp.config.override_text import sweep, typed
from flowexp.config.problems import Problem, did_you_mean, nearest
from flowexp.config.renamed import renamed_argument
from flowexp.config.run_folders import names_folder, nearest_run
from flowexp.tree import leaves, nodes, select

__all__ = ["absent_group", "all_groups", "check_added", "check_key", "check_options",
           "groups_of_folders", "in_full", "is_group", "key_like", "options_of", "parse",
           "selected", "sweep_values", "targets_in", "texts"]  # fmt: skip

_OPEN = ("budget.metric", "budget.when")
"""Mappings whose keys are names from elsewhere."""

_FOLDER = "folder"
_NESTED_OPTIONS = ("experiment", "table", "claim")
# How a person asks, where the group has another name: its noun, or what is no keyword of Python.
_SHORT = {
    "calibrate": ("for=", "calibration="),
    "pairs": ("from=", "start="),
    "prepare": ("in=", "source="),
    "train": ("from=", "parent="),
    "check": ("from=", "parent="),
}
_TAKE_RUN = ("train", "check", "eval", "sample", "stream", "pairs", "calibrate", "export")


def in_full(verb: str, overrides: Iterable[str]) -> list[str]:
    """Overrides of a verb with short forms written out: ``for=boss``, ``from=data``, a bare path.

    A bare path that exists names a run, several paths a sweep over runs. ``GROUP=PATH`` chooses the
    option ``folder`` of a group that has one.
    """
    short, full = _SHORT.get(verb, ("", ""))
    given = [
        full + text.removeprefix(short) if short and text.startswith(short) else text
        for each in overrides
        for text in _of_folder(each)
    ]
    bare = [
        text for text in given if verb in _TAKE_RUN and names_folder(text) and Path(text).exists()
    ]
    if not bare or any(text.startswith("run=") for text in given):
        return given
    paths = [text.replace("${", r"\${") for text in bare]
    named = sweep("run", paths) if len(paths) > 1 else written("run", paths[0])
    return [named, *(text for text in given if text not in bare)]


def _of_folder(text: str) -> list[str]:
    """``GROUP=PATH`` as ``GROUP=folder GROUP.folder=PATH``; other overrides as they are."""
    group, equals, value = text.partition("=")
    if not equals or group not in groups_of_folders():
        return [text]
    path = value.strip("'\"")
    named = (conf_dir() / group / f"{path}.yaml").is_file() or path in ("", "run", "null")
    if named or "," in path or not ("/" in path or os.sep in path or Path(path).is_dir()):
        return [text]
    return [f"{group}={_FOLDER}", written(f"{group}.{_FOLDER}", path.replace("${", r"\${"))]


@functools.cache
def groups_of_folders() -> frozenset[str]:
    """The groups with an option ``folder`` that reads what its argument ``folder`` names."""
    files = conf_dir().glob(f"*/{_FOLDER}.yaml")
    return frozenset(
        f.parent.name for f in files if f"\n{_FOLDER}:" in f.read_text(encoding="utf-8")
    )


def parse(overrides: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    """Parsed overrides, and a problem for each that cannot be read."""
    parser = OverridesParser.create()
    parsed: list[Override] = []
    problems: list[Problem] = []
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            problems.append(_no_override(text))
            continue
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            reason = str(error).splitlines()[0].rstrip(".")
            key, _, value = text.partition("=")
            remedy = f"Quote the value for Hydra and the shell: {typed(key, value)}"
            problems.append(Problem(key, f"{text!r} cannot be read: {reason}.", remedy))
    return parsed, problems


def _no_override(text: str) -> Problem:
    """The problem of a word without ``=``."""
    path = Path(text)
    if path.exists():
        return Problem(text, "the run is named twice.", "Name it once, as a path or with run=PATH.")
    if len(path.parts) < 2:
        problem = "this is neither key=value nor a run directory."
        return Problem(text, problem, f"Write {text}=VALUE, name a run directory, or leave it out.")
    guess = nearest_run(path)
    remedy = "Name a run directory." if guess is None else f"Did you mean {guess}?"
    return Problem(text, "there is no such folder.", remedy)


def texts(override: Override) -> list[str]:
    """The values of an override, or of a sweep, as plain text without null."""
    swept = override.is_sweep_override()
    values: list[Any] = list(override.sweep_iterator()) if swept else [override.value()]
    plain = [value.text if isinstance(value, QuotedString) else value for value in values]
    return [str(value).replace(r"\${", "${") for value in plain if value is not None]


def sweep_values(override: Override) -> list[str]:
    """The values a sweep runs over, as they would be typed."""
    return [str(value) for value in override.sweep_string_iterator()]


def targets_in(overrides: Iterable[str]) -> list[str]:
    """The classes that overrides name by themselves: ``network._target_=a.B``, ``{_target_: a.B}``.

    One that they take from elsewhere, ``${...}``, is not named by them.
    """
    found: list[str] = []
    for override in parse([text for text in overrides if "_target_" in text])[0]:
        values = [] if override.is_delete() else selected(override)
        if override.key_or_group.endswith("._target_"):
            found += [str(value) for value in values]
        found += [str(node["_target_"]) for _, node in nodes(values) if "_target_" in node]
    return [target for target in found if "${" not in target]


def is_group(override: Override, repo: Repository) -> bool:
    """Whether an override selects an option of a group (or looks like wanting to)."""
    name = override.key_or_group
    if override.package is not None or "/" in name:
        return True
    return "." not in name and bool(repo.group_exists(name))


def check_options(override: Override, repo: Repository) -> list[Problem]:
    """Problems with the group or the options that an override selects."""
    group = override.key_or_group
    if not repo.group_exists(group):
        return [Problem(group, "there is no such group.", did_you_mean(group, all_groups(repo)))]
    problems = []
    for value in selected(override):
        name = "null" if value is None else str(value)
        if name != "run" and not repo.config_exists(f"{group}/{name}"):
            text = f"there is no {group} called {name!r}."
            problems.append(Problem(group, text, did_you_mean(name, options_of(group, repo))))
    return problems


def all_groups(repo: ConfigRepository, parent: str = "") -> list[str]:
    """Every group and group inside a group, without Hydra's own."""
    names = []
    for name in repo.get_group_options(parent, ObjectType.GROUP):
        full = f"{parent}/{name}" if parent else name
        if full != "hydra" and parent not in _NESTED_OPTIONS:
            names += [full, *all_groups(repo, full)]
    return names


def options_of(group: str, repo: ConfigRepository) -> list[str]:
    """All options of a group; those in folders as ``folder/name``."""
    found = list(repo.get_group_options(group, ObjectType.CONFIG))
    if group.partition("/")[0] in _NESTED_OPTIONS:
        for inner in repo.get_group_options(group, ObjectType.GROUP):
            found += [f"{inner}/{name}" for name in options_of(f"{group}/{inner}", repo)]
    return found


def selected(override: Override) -> list[Any]:
    """The values of an override: those of a sweep or of a list, or the one it has."""
    if override.is_sweep_override():
        return [value.strip("'\"") for value in sweep_values(override)]
    if override.is_delete():
        return []
    value = override.value()
    return list(value) if isinstance(value, list) else [value]


def check_key(
    override: Override, config: dict[str, Any], repo: Repository, *, named: Collection[str]
) -> list[Problem]:
    """Problems with the key whose value an override changes.

    ``config`` is the unresolved config of the chosen groups, in plain containers; ``named`` are the
    groups of named parts, to which an entry can be added.
    """
    if override.is_add() or override.is_force_add():
        return []
    key = override.key_or_group
    parts = key.split(".")
    node: Any = config
    for depth, part in enumerate(parts):
        children = _children(node)
        if part not in children:
            problem = _unknown(parts, depth, config, repo)
            if depth != 1 or parts[0] not in named:
                return [problem]
            add = f"To add one, give {parts[0]}.{part}._target_=CLASS too."
            return [dataclasses.replace(problem, remedy=f"{problem.remedy} {add}".lstrip())]
        node = node[int(part)] if isinstance(node, list) else node[part]
    return []


def check_added(
    key: str, config: dict[str, Any], repo: Repository, *, named: Collection[str]
) -> list[Problem]:
    """Problems with a key that ``+`` or ``++`` adds; ``config`` and ``named`` as above.

    Arguments of classes are checked against their signatures elsewhere, and keys that the config
    refers to (``${width}``) can be added.
    """
    parts = key.split(".")
    above = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    found = dict(nodes(config))
    if any("_target_" in found.get(name, ()) for name in above) or parts[0] in named:
        return []
    if any(name in _OPEN for name in above):
        return []
    if any(f"${{{key}}}" in str(value) for _, value in leaves(config)):
        return []
    node: Any = config
    for depth, part in enumerate(parts):
        if part not in _children(node):
            return [_unknown(parts, depth, config, repo)]
        node = node[int(part)] if isinstance(node, list) else node[part]
    return []


def absent_group(key: str, group: str, remedy: str | None = None) -> Problem:
    """The problem of a key in a group that other commands have and this one does not."""
    return Problem(key, f"this command has no {group}.", remedy or "Leave it out.")


def key_like(name: str, config: dict[str, Any]) -> str | None:
    """The key whose last part is ``name``, begins it (``dry`` of ``dry_run``) or is like it."""
    if name in config or "." in name:
        return name
    owners = _owners(config, name)
    if owners:
        return owners[0]
    last = {key.rpartition(".")[2]: key for key, _ in reversed(list(leaves(config)))}
    parts = [part for part in last if not part.startswith("_")]
    guess = next((part for part in parts if name.startswith(f"{part}_")), nearest(name, parts))
    return None if guess is None else last[guess]


def _children(node: object) -> list[str]:
    if isinstance(node, Mapping):
        return [str(name) for name in node]
    return [str(i) for i in range(len(node))] if isinstance(node, list | ListConfig) else []


def _unknown(parts: list[str], depth: int, config: dict[str, Any], repo: Repository) -> Problem:
    key, part = ".".join(parts), parts[depth]
    if depth == 0:
        owners = _owners(config, parts[-1])
        remedy = f"Did you mean {owners[0]}?" if owners else None
        if remedy and len(parts) == 1:
            return Problem(key, "there is no such key.", remedy)
        if repo.group_exists(part):
            return absent_group(key, part, remedy)
        names = [*_children(config), *all_groups(repo)]
        text = f"there is no group or key called {part!r}."
        similar = key_like(part, config) if nearest(part, names) is None else None
        return Problem(
            key, text, f"Did you mean {similar}?" if similar else did_you_mean(part, names)
        )
    parent = ".".join(parts[:depth])
    node = OmegaConf.select(OmegaConf.create(config), parent)
    children = [c for c in _children(node) if not c.startswith("_")]
    guess = renamed_argument(select(node, "_target_"), part) or nearest(part, children)
    if guess is None:
        owners = _owners(config, part)
        remedy = f"Did you mean {owners[0]}?" if owners else did_you_mean(part, children)
    else:
        remedy = f"Did you mean {'.'.join([parent, guess, *parts[depth + 1 :]])}?"
    return Problem(key, f"{parent} has no key {part!r}.", remedy)


def _owners(config: dict[str, Any], name: str) -> list[str]:
    """The full keys that end in ``name``."""
    return [f"{key}.{name}".lstrip(".") for key, node in nodes(config) if name in node]
