"""A composed config as plain values: what is missing in it, and what leads nowhere."""

import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowexp.config.derived import why_not_derived
from flowexp.config.misfits import misfits
from flowexp.config.option_files import NO_FILES, OptionFiles
from flowexp.config.overrides import absent_group
from flowexp.config.problems import Problem
from flowexp.errors import UsageError
from flowexp.tree import select

__all__ = ["MUST_BE_GIVEN", "Resolved", "composition_problem", "resolve"]

_TAKEN = re.compile(r"\$\{([\w.]+)\}")
_OPTIONAL = re.compile(r"\$\{oc\.select:([\w.]+),null\}")
MUST_BE_GIVEN = "must be given."


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


def resolve(config: DictConfig, files: OptionFiles = NO_FILES) -> Resolved:
    """Resolve every interpolation; report all that fail instead of stopping at the first.

    ``files`` are the yaml files of the chosen options.
    """
    result = Resolved()
    result.values = {n: _child(config, n, n, result) for n in map(str, config)}
    found = misfits(result.failed, config=result.values, files=files)
    result.problems = list(dict.fromkeys([*result.problems, *found]))
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
        refused = why_not_derived(error)
        if refused is not None:
            # Reported at the derived key itself, or at the key that the function blames.
            if refused.key or "derived:" in str(raw[name]):
                result.problems.append(_refused(refused, key))
            return None
        wanted = str(raw[name]).strip("${} ")
        # What must be given is reported where it stands, not again where it is used.
        if "issing" not in type(error).__name__:
            result.failed.append((key, wanted))
        return None
    absent = _absent(node, name) if value is None else None
    if absent is not None:
        result.missing.add(key)
        result.failed.append((key, absent))
    if isinstance(value, DictConfig):
        return {n: _child(value, n, f"{key}.{n}", result) for n in map(str, value)}
    if isinstance(value, ListConfig):
        return [_child(value, i, f"{key}[{i}]", result) for i in range(len(value))]
    return value


def _absent(node: DictConfig | ListConfig, name: str | int) -> str | None:
    """The key that is not there, if a value is taken from ``${oc.select:KEY,null}`` of another."""
    raw: Any = OmegaConf.to_container(node, resolve=False)
    taken = _TAKEN.fullmatch(str(raw[name]))
    if taken is None:
        return None
    whole = OmegaConf.to_container(node._get_root(), resolve=False)
    optional = _OPTIONAL.fullmatch(str(select(whole, taken[1])))
    return None if optional is None else optional[1]


def _refused(error: UsageError, key: str) -> Problem:
    return Problem(error.key or key, error.problem, error.remedy or f"Give it with {key}=VALUE.")


def composition_problem(error: Exception) -> Problem:
    """What is wrong with overrides that Hydra cannot compose."""
    group = re.match(r"Could not override '([^'@]+)/([^'@/]+)", str(error))
    if group is not None:
        parent, part = group.groups()
        text = f"the chosen {parent} has no {part} to choose."
        return Problem(f"{parent}/{part}", text, f"Choose another {parent}, or drop it.")
    absent = re.match(r"Could not override '([^'@/]+)'. No match in the defaults list", str(error))
    if absent is not None:
        return absent_group(absent.group(1), absent.group(1))
    recipe = re.match(r"In 'experiment/([^']+)': Could not override '([^'@/]+)([^']*)", str(error))
    if recipe is not None:
        name, parent, rest = recipe.groups()
        text = f"{name} chooses {parent}{rest}, for which the chosen {parent} has no place."
        return Problem("experiment", text, f"Keep its {parent}, or take another experiment.")
    twice = re.search(r"Multiple values for ([\w/]+)\.", str(error))
    if twice is not None:
        text = "an option of this group is already chosen, and + would add a second one."
        return Problem(twice.group(1), text, f"Write {twice.group(1)}=NAME, without +.")
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
        wanted = {"Integer": "an integer, such as 100", "Float": "a number"}.get(kind, kind)
        return Problem(key, f"the value {value} has the wrong type.", f"Give {wanted}.")
    if "is not Optional" in detail:
        return Problem(key, "null is not allowed.", f"Give {key}=VALUE, or leave it out.")
    remedy = "flowexp VERB --cfg job shows the config."
    return Problem(key, f"{detail.rstrip('.')}.", remedy)
