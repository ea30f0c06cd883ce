"""Groups, options and keys that a command line names, held against those there are."""

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

__all__ = ["Names", "check_names", "settings", "without_dashes"]

# What stands in them can set any key.
_EVERYWHERE = ("experiment", "debug", "local", "launcher")


@dataclass
class Names:
    """The outcome of a check of names.

    Attributes:
        problems: The wrong ones.
        sound: The overrides without a wrong name.
        lost: Groups of which no option is known, since a wrong one was chosen.
    """

    problems: list[Problem] = field(default_factory=list)
    sound: list[Override] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def covers(self, key: str) -> bool:
        """Whether a key stands in a group that was lost."""
        return any(f"{key}.".startswith(f"{group.replace('/', '.')}.") for group in self.lost)


def check_names(
    config_name: str, parsed: Sequence[Override], path: ConfigSearchPath, *, added: Iterable[str]
) -> Names:
    """Hold all names against the config that the known choices make.

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
    """The config in plain containers, with interpolations as they stand.

    Raises:
        hydra.errors.HydraException: It cannot be composed.
    """
    composed = RunAwareLoader(path).compose(config_name, overrides)
    plain: Any = OmegaConf.to_container(composed, resolve=False)
    return {key: value for key, value in plain.items() if key != "hydra"}


def settings(override: Override) -> list[str]:
    """What an override sets, as typed; of a sweep, once for each of its values."""
    if override.is_sweep_override():
        return [f"{override.get_key_element()}={value}" for value in sweep_values(override)]
    return [str(override.input_line)]


def without_dashes(text: str, config: dict[str, Any], path: ConfigSearchPath) -> Problem:
    """What to write instead of an option in the style of other programs: ``--lr=0.1``."""
    option, equals, value = text.partition("=")
    name = option.lstrip("-").replace("-", "_")
    groups = all_groups(Repository(path))
    key = name if name in groups else key_like(name, config)
    problem = "flowexp's keys have no dashes."
    if key is None:
        return Problem(option, problem, did_you_mean(name, groups))
    written = f"{key}={value if equals else 'VALUE'}"
    return Problem(option, problem, f"Write {shlex.quote(written)}.")
