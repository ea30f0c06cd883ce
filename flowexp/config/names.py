"""Checks the groups, options and keys of a command line against the existing ones."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from flowexp.config.hydra_internals import Repository
from flowexp.config.loader import RunAwareLoader, with_run
from flowexp.config.overrides import (
    all_groups,
    check_added,
    check_key,
    check_options,
    is_group,
    key_like,
    sweep_values,
)
from flowexp.config.problems import Problem, did_you_mean
from flowexp.config.schema import named_entries
from flowexp.config.sources import run_in
from flowexp.tree import select

__all__ = ["Names", "check_names", "settings", "without_dashes"]

# Options of these groups can set any key.
_EVERYWHERE = ("experiment", "debug", "local", "launcher")


@dataclass
class Names:
    """The result of a check of names.

    Attributes:
        problems: One for each wrong name.
        sound: The overrides whose names are right.
        lost: Groups whose chosen option does not exist.
    """

    problems: list[Problem] = field(default_factory=list)
    sound: list[Override] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def covers(self, key: str) -> bool:
        """Whether a key belongs to a lost group."""
        return any(f"{key}.".startswith(f"{group.replace('/', '.')}.") for group in self.lost)


def check_names(
    config_name: str, parsed: Sequence[Override], path: ConfigSearchPath, *, added: Iterable[str]
) -> Names:
    """Check all names against the config composed of the valid choices.

    ``added`` are keys that the user adds with ``+``.
    """
    directory = run_in([str(o.input_line) for o in parsed])
    repo = Repository(with_run(path, directory))
    names, known = Names(), []
    for override in (o for o in parsed if is_group(o, repo)):
        wrong = check_options(override, repo)
        names.problems += wrong
        if wrong:
            names.lost.add(override.key_or_group)
        else:
            known.append(settings(override)[0])
    run = [] if directory is None else [f"run={directory}"]
    try:
        plain = plain_config(config_name, [*known, *run], path)
    except HydraException:  # one of the choices needs a value; the caller says so
        names.sound = [o for o in parsed if not is_group(o, repo) or settings(o)[0] in known]
        return names
    guessing = names.lost & {*_EVERYWHERE}
    for override in parsed:
        key = str(override.key_or_group)
        if is_group(override, repo):
            wrong = check_options(override, repo)
        elif key.startswith("hydra."):
            wrong = []
        elif key in added:
            referred = any(f"${{{key}}}" in str(o.input_line) for o in parsed)
            named = named_entries(config_name)
            wrong = [] if referred else check_added(key, plain, repo, named=named)
            names.problems += wrong
        else:
            wrong = check_key(override, plain, repo, named=named_entries(config_name))
            if not guessing and not names.covers(key):
                names.problems += wrong
        if not wrong:
            names.sound.append(override)
    return names


def plain_config(
    config_name: str, overrides: Sequence[str], path: ConfigSearchPath
) -> dict[str, Any]:
    """The config in plain containers, with unresolved interpolations.

    Raises:
        hydra.errors.HydraException: It cannot be composed.
    """
    composed = RunAwareLoader(path).compose(config_name, overrides)
    plain: Any = OmegaConf.to_container(composed, resolve=False)
    return {key: value for key, value in plain.items() if key != "hydra"}


def settings(override: Override) -> list[str]:
    """An override as typed; a sweep as one override per value."""
    if override.is_sweep_override():
        return [f"{override.get_key_element()}={value}" for value in sweep_values(override)]
    return [str(override.input_line)]


def without_dashes(text: str, config: dict[str, Any], path: ConfigSearchPath) -> Problem:
    """The problem of an option in the style of other programs, ``--lr=0.1``."""
    option, equals, value = text.partition("=")
    name = option.lstrip("-").replace("-", "_")
    groups = all_groups(Repository(path))
    key = name if name in groups else key_like(name, config)
    problem = "flowexp takes KEY=VALUE instead of dashed options."
    if key is None:
        return Problem(option, problem, did_you_mean(name, groups))
    needed = "true" if isinstance(select(config, key), bool) else "VALUE"
    written = f"{key}={value if equals else needed}"
    return Problem(option, problem, f"Write {shlex.quote(written)}.")
