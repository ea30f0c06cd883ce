"""Is a command line sound? All problems at once, before data is read or weights are allocated.

The check works on text alone: overrides are held against the groups and keys that exist, values
against the constructors' annotations (read from source, not imported), combinations against
``flowexp.config.rules``. It answers in a fraction of a second and imports no torch.
"""

import itertools
import logging
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowexp.config.hydra_internals import Repository
from flowexp.config.loader import RunAwareLoader, search_path, with_run
from flowexp.config.named_targets import with_additions
from flowexp.config.override_text import typed
from flowexp.config.overrides import (
    check_key,
    check_options,
    is_group,
    parse,
    selected,
    sweep_values,
    targets_in,
)
from flowexp.config.problems import ConfigError, Problem
from flowexp.config.rules import check_rules
from flowexp.config.run_folders import (
    CONFIG,
    is_run,
    known_runs,
    listed,
    nearest_run,
    runs_below,
)
from flowexp.config.schema import named_entries, out_of_range, starts_from_run
from flowexp.config.sources import run_in, runs_in
from flowexp.config.targets import check_targets
from flowexp.config.trust import Author, declared_in, problems_with, trusting

__all__ = ["MUST_BE_GIVEN", "Checked", "check", "check_job", "own_choices", "resolve"]

MUST_BE_GIVEN = "must be given."

_LOG = logging.getLogger(__name__)
_MOST_JOBS = 64


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
) -> Checked:
    """Check a command line: overrides as typed, for the primary config of a verb.

    With ``multirun`` (``-m``) every combination is checked (up to 64). ``config_dir`` is a folder
    with further groups (``--config-dir``).
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        text = f"{config_dir} is not a folder."
        return Checked([Problem("--config-dir", text, "Give a folder that holds config groups.")])
    path = search_path(config_dir)
    parsed, problems = parse(overrides)
    parsed = with_additions(parsed, config_name=config_name)
    if starts_from_run(config_name):
        unread = any(problem.key in overrides for problem in problems)
        problems += [] if unread else _check_run(config_name, overrides)
    if not multirun:
        problems += [_needs_multirun(o) for o in parsed if o.is_sweep_override()]
    problems += _merged_parts(parsed, with_run(path, run_in(list(overrides))))
    if problems:
        return Checked(problems)
    result = Checked()
    with trusting(declared_in(targets_in(overrides), config_dir=config_dir)):
        for job in itertools.islice(itertools.product(*map(_settings, parsed)), _MOST_JOBS):
            single = check_job(config_name, job, path=path)
            if not single.config:
                # That it cannot be composed is said by Hydra; what was meant takes a second one.
                return Checked(_check_names(config_name, parsed, path) or single.problems)
            result.problems += [p for p in single.problems if p not in result.problems]
            result.remarks += [r for r in single.remarks if r not in result.remarks]
            result.config = result.config or single.config
            result.choices = result.choices or single.choices
    return result


def check_job(
    config_name: str, overrides: Sequence[str], *, path: ConfigSearchPath | None = None
) -> Checked:
    """Check one job, by one composition; :func:`check` also says what a wrong name meant."""
    loader = RunAwareLoader(path or search_path())
    try:
        composed = loader.compose(config_name, overrides)
    except (HydraException, ValueError, TypeError) as error:  # numbers in place of options' names
        return Checked([_composition_problem(error)])
    choices = own_choices(composed.hydra.runtime.choices)
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    resolved = resolve(composed)
    run = run_in(list(overrides))
    if run is not None:
        # Before the rest, which runs the constructors of what is named as far as it can.
        refused = problems_with(resolved.values, by=Author.of(Path(run) / CONFIG))
        if refused:
            return Checked(refused, resolved.values, choices)
    problems = list(resolved.problems)
    problems += check_targets(resolved.values, missing=resolved.missing)
    reported = {problem.key for problem in problems}
    ranges = out_of_range(config_name, resolved.values)
    problems += [problem for problem in ranges if problem.key not in reported]
    reported |= {problem.key for problem in problems}
    found = check_rules(resolved.values, missing=resolved.missing)
    problems += [p for p in found if p.refuses and p.key not in reported]
    remarks = [*loader.remarks, *(str(p) for p in found if not p.refuses)]
    return Checked(problems, resolved.values, choices, remarks)


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


def own_choices(choices: Mapping[str, Any]) -> dict[str, str]:
    """The chosen option of every group that is not Hydra's own."""
    return {str(k): str(v) for k, v in choices.items() if not str(k).startswith("hydra/")}


def _needs_multirun(override: Override) -> Problem:
    name = override.key_or_group
    text = f"{override.input_line} names several values."
    if name == "run":
        return Problem(name, text, "Add -m to run one job each, or name one run.")
    return Problem(name, text, f"Add -m to run one job each, or write {name}=[...] for a list.")


def _check_run(config_name: str, overrides: Sequence[str]) -> list[Problem]:
    """A verb that starts from a run needs a run directory before anything can be composed."""
    runs = runs_in(list(overrides))
    if not runs:
        known = known_runs(Path("outputs"))[-1:]
        latest = "".join(f", such as {typed('run', path)}" for path in known)
        remedy = f"Give run=DIR, a directory that train wrote{latest}."
        return [Problem("run", f"{config_name} needs a run.", remedy)]
    key = "recipe" if any(o.startswith("recipe=") for o in overrides) else "run"
    problems = []
    for folder in (Path(run) for run in runs if not is_run(Path(run))):
        inside = runs_below(folder)
        if inside and key == "run":
            count = f"{len(inside)} run{'s' if len(inside) > 1 else ''}"
            text = (
                f"{folder} holds {count} ({listed(folder, inside)}), and {config_name} takes one."
            )
            remedy = f"Name it: {_with_run(config_name, overrides, inside[0])}"
            problems.append(Problem(key, text, remedy))
            continue
        what = "holds no run." if folder.is_dir() else "is not a run directory (no such folder)."
        what = "is not a run directory (it is a file)." if folder.is_file() else what
        problems.append(Problem(key, f"{folder} {what}", _runs_nearby(folder, key)))
    return problems


def _with_run(verb: str, overrides: Sequence[str], run: Path) -> str:
    """The command line with another run."""
    rest = [text for text in overrides if not text.startswith("run=")]
    return " ".join(["flowexp", verb, typed("run", str(run)), *map(shlex.quote, rest)])


def _runs_nearby(folder: Path, key: str) -> str:
    guess, known = nearest_run(folder), known_runs(folder)
    if guess is not None:
        return f"Did you mean {typed(key, str(guess))}?"
    return (
        f"The latest one is {typed(key, str(known[-1]))}."
        if known
        else "Train one first: flowexp train."
    )


def _check_names(
    config_name: str, parsed: Sequence[Override], path: ConfigSearchPath
) -> list[Problem]:
    """Problems with the groups, options and keys that the overrides name."""
    directory = run_in([str(o.input_line) for o in parsed])
    run = [] if directory is None else [f"run={directory}"]
    repo = Repository(with_run(path, directory))
    groups = [o for o in parsed if is_group(o, repo)]
    problems = [p for o in groups for p in check_options(o, repo)]
    known = [_settings(o)[0] for o in groups if not check_options(o, repo)]
    try:
        composed = RunAwareLoader(path).compose(config_name, [*known, *run])
    except HydraException as error:
        return problems or [_composition_problem(error)]
    plain: Any = OmegaConf.to_container(composed, resolve=False)
    for override in parsed:
        if override not in groups and not override.key_or_group.startswith("hydra."):
            problems += check_key(override, plain, repo, named=named_entries(config_name))
    return problems


def _settings(override: Override) -> list[str]:
    """What an override sets, as typed; of a sweep, once for each of its values."""
    if override.is_sweep_override():
        return [f"{override.get_key_element()}={value}" for value in sweep_values(override)]
    return [str(override.input_line)]


def _composition_problem(error: Exception) -> Problem:
    group = re.match(r"Could not override '([^'@]+)/([^'@/]+)", str(error))
    if group is not None:
        parent, part = group.groups()
        text = f"the chosen {parent} has no {part} to choose."
        return Problem(f"{parent}/{part}", text, f"Choose another {parent}, or drop it.")
    plugin = re.search(r"Could not find 'hydra/launcher/(\w+)'", str(error))
    if plugin is not None:
        name = plugin.group(1)
        extra = {"submitit_local": "slurm", "submitit_slurm": "slurm"}.get(name, name)
        remedy = f"pip install 'flowexp[{extra}]', or use launcher=local."
        return Problem("launcher", f"Hydra's launcher {name} is not installed.", remedy)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None) or str(error).partition("'")[2].partition("'")[0]
    detail = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
    key = str(key or "command line")
    typed_wrong = re.match(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", detail)
    if typed_wrong is not None:
        value, kind = typed_wrong.groups()
        wanted = {"Integer": "a whole number, such as 100", "Float": "a number"}.get(kind, kind)
        return Problem(key, f"{value} is out of place.", f"Give {wanted}.")
    if "is not Optional" in detail:
        return Problem(key, "null is out of place.", f"Give it with {key}=VALUE, or leave it out.")
    remedy = "flowexp VERB --cfg job shows what stands there."
    return Problem(key, f"{detail.rstrip('.')}.", remedy)


@dataclass
class Resolved:
    """Plain values and what could not be resolved.

    Attributes:
        values: Nested dicts, lists and scalars; None where something is missing.
        problems: Missing values and interpolations that lead nowhere.
        missing: The keys of those.
        failed: Keys with the interpolation in them that leads nowhere.
    """

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    failed: list[tuple[str, str]] = field(default_factory=list)


def resolve(config: DictConfig) -> Resolved:
    """Resolve every interpolation; report all that fail instead of stopping at the first."""
    result = Resolved()
    result.values = {n: _child(config, n, n, result) for n in map(str, config)}
    result.problems += _misfits(result.failed)
    return result


def _child(node: DictConfig | ListConfig, name: str | int, key: str, result: Resolved) -> Any:  # noqa: ANN401
    interpolated = OmegaConf.is_interpolation(node, name)
    if OmegaConf.is_missing(node, name) and not interpolated:
        result.missing.add(key)
        result.problems.append(Problem(key, MUST_BE_GIVEN, f"Give it with {key}=VALUE."))
        return None
    try:
        value: Any = node[name]  # type: ignore[index]  # the name fits the kind of container
    except OmegaConfBaseException as error:
        result.missing.add(key)
        raw: Any = OmegaConf.to_container(node, resolve=False)
        wanted = str(raw[name]).strip("${} ")
        # What must be given is reported where it stands, not again where it is used.
        if "issing" not in type(error).__name__:
            result.failed.append((key, wanted))
        return None
    if isinstance(value, DictConfig):
        return {n: _child(value, n, f"{key}.{n}", result) for n in map(str, value)}
    if isinstance(value, ListConfig):
        return [_child(value, i, f"{key}[{i}]", result) for i in range(len(value))]
    return value


def _misfits(failed: list[tuple[str, str]]) -> list[Problem]:
    """One problem per pair of groups of which one wants what the other does not have."""
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for key, wanted in failed:
        pairs[key.partition(".")[0], wanted.partition(".")[0]].append((key, wanted))
    problems = []
    for (own, other), members in pairs.items():
        keys = ", ".join(dict.fromkeys(key.partition(".")[2] for key, _ in members))
        wanted = ", ".join(dict.fromkeys(name for _, name in members))
        text = (
            f"the chosen {own} takes {keys} from {wanted}, and the chosen {other} has no such key."
        )
        remedy = f"Choose another {own} or another {other}: these two do not fit."
        problems.append(Problem(members[0][0], text, remedy))
    return problems
