"""A composed config as plain values, with everything that is missing reported."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowexp.config.problems import Problem

__all__ = ["MUST_BE_GIVEN", "Resolved", "resolve"]

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


def resolve(config: DictConfig) -> Resolved:
    """Resolve every interpolation; report all that fail instead of stopping at the first."""
    result = Resolved()
    result.values = _container(config, "", result)
    result.problems += _misfits(result.failed)
    return result


def _container(node: DictConfig | ListConfig, key: str, result: Resolved) -> Any:  # noqa: ANN401
    if isinstance(node, DictConfig):
        names = [str(name) for name in node]
        return {n: _child(node, n, f"{key}.{n}" if key else n, result) for n in names}
    return [_child(node, i, f"{key}[{i}]", result) for i in range(len(node))]


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
    if isinstance(value, DictConfig | ListConfig):
        return _container(value, key, result)
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
