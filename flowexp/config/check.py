"""Is a command line sound? All problems at once, before data is read or weights are allocated.

The check works on text alone: overrides are held against the groups and keys that exist, values
against the constructors' annotations (read from source, not imported), combinations against
``flowexp.config.rules``. It answers in a fraction of a second and imports no torch.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from flowexp.config.combinations import combinations, said_once
from flowexp.config.from_run import primary_config, problems_of_start
from flowexp.config.hydra_internals import ConfigRepository, Repository
from flowexp.config.loader import RunAwareLoader, search_path, with_run
from flowexp.config.named_run import problems_with_run
from flowexp.config.named_targets import with_additions
from flowexp.config.names import Names, check_names, without_dashes
from flowexp.config.option_files import OptionFiles
from flowexp.config.origins import overruled
from flowexp.config.overrides import parse, selected, targets_in
from flowexp.config.problems import ConfigError, Problem
from flowexp.config.relatives import differing_data, problems_with_relatives
from flowexp.config.resolved import composition_problem, resolve
from flowexp.config.rules import check_rules
from flowexp.config.run_folders import CONFIG
from flowexp.config.schema import (
    TRAIN_FROM,
    TRAIN_RUN,
    out_of_range,
    own_keys,
    starts_from_run,
    trains,
)
from flowexp.config.sources import run_in, runs_in
from flowexp.config.targets import check_targets
from flowexp.config.trust import Author, declared_in, problems_with, trusting

__all__ = ["Checked", "Further", "check", "check_job", "own_choices"]

_LOG = logging.getLogger(__name__)


Further = Callable[[str, Mapping[str, Any]], Iterable[Problem]]
"""Name of the primary config and plain config of a job -> problems."""


@dataclass
class Checked:
    """The outcome of a check.

    Attributes:
        problems: Everything that is wrong; empty means sound.
        config: The plain, resolved config of the (first) job, if it could be composed.
        choices: The chosen option of every group of that job.
        remarks: What else the user should know of.
    """

    problems: list[Problem] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def sound(self) -> dict[str, Any]:
        """Log the remarks and return the config.

        Raises:
            ConfigError: There are problems.
        """
        if self.problems:
            raise ConfigError(self.problems)
        for remark in self.remarks:
            _LOG.warning(remark)
        return self.config


def check(
    config_name: str,
    overrides: Sequence[str],
    *,
    multirun: bool = False,
    config_dir: str | None = None,
    also: Further | None = None,
) -> Checked:
    """Check a command line: overrides as typed, for the primary config of a verb.

    Args:
        config_name: The verb's primary config.
        overrides: As typed.
        multirun: Whether ``-m`` was given: combinations are checked, see :func:`combinations`.
        config_dir: A folder with further groups (``--config-dir``).
        also: Finds further problems in the plain config of a job, such as files that are missing.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        text = f"{config_dir} is not a folder."
        return Checked([Problem("--config-dir", text, "Give a folder that holds config groups.")])
    config_name = primary_config(config_name, overrides)
    path = search_path(config_dir)
    dashed = [text for text in overrides if text.startswith("-")]
    undashed, problems = parse([text for text in overrides if text not in dashed])
    unread = bool(problems)
    apart = list(problems_of_start(config_name, undashed, multirun=multirun))
    added = {str(o.key_or_group) for o in undashed if o.is_add() or o.is_force_add()}
    parsed = with_additions(undashed, config_name=config_name)
    if not multirun:
        problems += [_needs_multirun(o, config_name) for o in parsed if o.is_sweep_override()]
    lacking = problems_with_run(config_name, overrides) if starts_from_run(config_name) else []
    if lacking:
        # Nothing can be composed without the run's own options.
        lacking = [] if unread and not runs_in(list(overrides)) else lacking
        keys = dict.fromkeys(own_keys(config_name))
        given = {str(o.key_or_group): o.value() for o in parsed if not o.is_sweep_override()}
        found = [*lacking, *problems, *out_of_range(config_name, given)]
        return Checked(_with_dashed(list(map(_as_typed, found)), dashed, keys, path))
    apart += _merged_parts(parsed, with_run(path, run_in(list(overrides))))
    problems += apart
    if config_name == TRAIN_RUN and any(p.key == "run" for p in apart):
        return Checked(problems)  # which has nothing to be composed of without it
    jobs = _Jobs(config_name, config_dir, added=added, also=also)
    with trusting(declared_in(targets_in(overrides), config_dir=config_dir)):
        result = jobs.check(_others(parsed, apart))
    problems += [p for p in result.problems if p not in problems]
    result.problems = _with_dashed(list(map(_as_typed, problems)), dashed, result.config, path)
    return result


def _as_typed(problem: Problem) -> Problem:
    """``from=RUN`` of a training has the key ``parent``, as ``from`` is a keyword of Python."""
    if problem.key != "parent":
        return problem
    text, remedy = (said.replace("parent=", "from=") for said in (problem.text, problem.remedy))
    return replace(problem, key="from", text=text, remedy=remedy)


def _with_dashed(
    problems: list[Problem], dashed: Sequence[str], config: dict[str, Any], path: ConfigSearchPath
) -> list[Problem]:
    """The problems, with those of dashed options first and without others about the same keys."""
    given = {text.lstrip("-").partition("=")[0] for text in dashed}
    others = [problem for problem in problems if problem.key not in given]
    return [*(without_dashes(text, config, path) for text in dashed), *others]


@dataclass(frozen=True)
class _Jobs:
    """Checks every combination of a command line's values.

    Attributes:
        added: Keys that the user adds with ``+``.
        also: See :func:`check`.
    """

    config_name: str
    config_dir: str | None
    added: set[str]
    also: Further | None

    def check(self, parsed: list[Override]) -> Checked:
        """Check them; overrides that cannot be composed are reported and then left out."""
        if self.added and (names := self._names(parsed)).problems:
            return self._with(names.problems, names.sound)
        jobs, where = combinations(parsed), self.config_dir
        found: list[Checked] = []
        said: list[str] = []
        for job in jobs:
            single = check_job(self.config_name, job.settings, config_dir=where, also=self.also)
            if not single.config:
                return self._without_wrong(parsed, single.problems)
            # What a recipe overrides depends on the options alone.
            if all(single.choices != other.choices for other in found):
                said += overruled(self.config_name, job.settings, config_dir=where)
            said += single.remarks
            found.append(single)
        result = Checked(config=found[0].config, choices=found[0].choices)
        result.problems = said_once(jobs, [single.problems for single in found])
        result.remarks = list(dict.fromkeys(said))
        return result

    def _names(self, parsed: list[Override]) -> Names:
        path = search_path(self.config_dir)
        return check_names(self.config_name, parsed, path, added=self.added)

    def _without_wrong(self, parsed: list[Override], said: list[Problem]) -> Checked:
        # Hydra only says that it cannot be composed; finding the names takes another composition.
        names = self._names(parsed)
        problems = names.problems or said
        sound = names.sound if names.problems else _others(parsed, said)
        if len(sound) == len(parsed):
            return Checked(problems)
        result = self._with(problems, sound)
        if names.lost or any(problem.key == "experiment" for problem in problems):
            # Options that were not found may be what others need.
            result.problems = [
                p
                for p in result.problems
                if p in problems or not (p.between_parts or names.covers(p.key))
            ]
        return result

    def _with(self, problems: list[Problem], sound: list[Override]) -> Checked:
        """The given problems and those of the sound overrides."""
        rest = replace(self, added=set()).check(sound)
        rest.problems = [*problems, *(p for p in rest.problems if p not in problems)]
        return rest


def _others(parsed: Sequence[Override], problems: Sequence[Problem]) -> list[Override]:
    """The overrides of other keys than those of problems."""
    wrong = {problem.key for problem in problems}
    return [o for o in parsed if o.key_or_group not in wrong]


def check_job(
    config_name: str,
    overrides: Sequence[str],
    *,
    config_dir: str | None = None,
    also: Further | None = None,
) -> Checked:
    """Check one job, by one composition; :func:`check` also says what a wrong name meant."""
    config_name = primary_config(config_name, overrides)
    loader = RunAwareLoader(search_path(config_dir))
    try:
        composed = loader.compose(config_name, overrides)
    except (HydraException, ValueError, TypeError) as error:  # numbers in place of options' names
        return Checked([composition_problem(error)])
    choices = own_choices(composed.hydra.runtime.choices)
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    run = run_in(list(overrides))
    where = Path(config_dir) if config_dir else None
    files = OptionFiles(choices, where, None if run is None else Path(run))
    resolved = resolve(composed, files)
    if run is not None:
        # Before the rest, which runs the constructors of what is named as far as it can.
        refused = problems_with(resolved.values, by=Author.of(Path(run) / CONFIG))
        if refused:
            return Checked(refused, resolved.values, choices)
    other = None
    starts = config_name == TRAIN_FROM and resolved.values.get("init") == run
    if run is not None and (starts or not trains(config_name)):
        other = differing_data(
            resolved.values,
            run=run,
            chosen=choices.get("dataset"),
            options=partial(_options_of, "dataset", loader.repository),
        )
        if other is not None and not trains(config_name):
            return Checked([other], resolved.values, choices)
    problems = list(resolved.problems)
    problems += check_targets(resolved.values, missing=resolved.missing, files=files)
    reported = {problem.key for problem in problems}
    ranges = out_of_range(config_name, resolved.values)
    problems += [problem for problem in ranges if problem.key not in reported]
    reported |= {problem.key for problem in problems}
    found = check_rules(resolved.values, missing=resolved.missing)
    if trains(config_name):
        parent = run if config_name == TRAIN_FROM else None
        found += problems_with_relatives(resolved.values, overrides, parent=parent)
    # A constructor that refuses a value of a wrong type says so in Python's words.
    found = [p for p in found if p.between_parts or not _is_above(p.key, reported)]
    problems += [p for p in found if p.refuses and p.key not in reported]
    if other is not None:  # other problems, such as the network's shape, follow from it
        problems = [other, *(p for p in problems if not p.between_parts and p.key != "from")]
    problems = [_at_override(problem, overrides) for problem in problems]
    reported |= resolved.missing
    reported |= {problem.key for problem in problems}
    further = [] if also is None else also(config_name, resolved.values)
    further = [p for p in further if p.key not in reported and not _is_above(p.key, reported)]
    problems += [p for p in further if p.refuses]
    remarks = [*loader.remarks, *(str(p) for p in (*found, *further) if not p.refuses)]
    return Checked(problems, resolved.values, choices, remarks)


def _is_above(key: str, keys: Iterable[str]) -> bool:
    return any(other.startswith(f"{key}.") for other in keys)


def _at_override(problem: Problem, overrides: Sequence[str]) -> Problem:
    """A part's problem moved to the overridden argument that it mentions, if there is only one."""
    given = [text.lstrip("+").partition("=")[::2] for text in overrides]
    below = [(key, value) for key, value in given if key.startswith(f"{problem.key}.")]
    words = set(re.findall(r"-?[\w.]*\w", problem.text))
    keys = {key for key, value in below if words & {key.rpartition(".")[2], value}}
    return replace(problem, key=keys.pop()) if len(keys) == 1 else problem


def _merged_parts(parsed: Sequence[Override], path: ConfigSearchPath) -> Iterator[Problem]:
    """Lists of options of one group which are different parts: Hydra would merge their keys."""
    lists = [o for o in parsed if "." not in o.key_or_group and isinstance(o.value(), list)]
    repo = Repository(path) if lists else None
    for override in lists:
        group, names = override.key_or_group, selected(override)
        found = {name: repo.load_config(f"{group}/{name}") for name in names} if repo else {}
        parts = [
            str(name) for name, option in found.items() if option and "_target_" in option.config
        ]
        if len(parts) > 1:
            text = f"{' and '.join(parts)} are parts each, and a config holds one of them."
            yield Problem(group, text, f"Choose one, or sweep with {group}={','.join(parts)} -m.")


def _options_of(group: str, repo: ConfigRepository) -> dict[str, Any]:
    """The unresolved configs of all options of a group, by name."""
    found = {}
    for name in repo.get_group_options(group, ObjectType.CONFIG):
        option = repo.load_config(f"{group}/{name}")
        if option is not None:
            found[str(name)] = OmegaConf.to_container(option.config, resolve=False)
    return found


def own_choices(choices: Mapping[str, Any]) -> dict[str, str]:
    """The chosen option of every group that is not Hydra's own."""
    return {str(k): str(v) for k, v in choices.items() if not str(k).startswith("hydra/")}


def _needs_multirun(override: Override, config_name: str) -> Problem:
    name = override.key_or_group
    text = f"{override.input_line} names several values."
    if config_name == TRAIN_RUN and name == "run":
        return Problem(name, text, "Name one run, and go on with each by a command of its own.")
    if name == "run":
        return Problem(name, text, "Add -m to run one job each, or name one run.")
    return Problem(name, text, f"Add -m to run one job each, or write {name}=[...] for a list.")
