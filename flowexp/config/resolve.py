"""A composed config as plain values, with everything that is missing reported."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowexp.config.problems import Problem

__all__ = ["Resolved", "resolve"]


@dataclass
class Resolved:
    """Plain values and what could not be resolved.

    Attributes:
        values: Nested dicts, lists and scalars; None where something is missing.
        problems: Missing values and interpolations that lead nowhere.
        missing: The keys of those.
    """

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)


def resolve(config: DictConfig) -> Resolved:
    """Resolve every interpolation; report all that fail instead of stopping at the first."""
    result = Resolved()
    result.values = _container(config, "", result)
    return result


def _container(node: DictConfig | ListConfig, key: str, result: Resolved) -> Any:  # noqa: ANN401
    if node._is_none() or node._is_missing():
        return None
    if isinstance(node, DictConfig):
        names = [str(name) for name in node]
        return {n: _child(node, n, f"{key}.{n}" if key else n, result) for n in names}
    return [_child(node, i, f"{key}[{i}]", result) for i in range(len(node))]


def _child(node: DictConfig | ListConfig, name: str | int, key: str, result: Resolved) -> Any:  # noqa: ANN401
    interpolated = OmegaConf.is_interpolation(node, name)
    if OmegaConf.is_missing(node, name) and not interpolated:
        result.missing.add(key)
        result.problems.append(Problem(key, "must be given.", f"Give it with {key}=VALUE."))
        return None
    try:
        value: Any = node[name]  # type: ignore[index]  # the name fits the kind of container
    except OmegaConfBaseException as error:
        result.missing.add(key)
        raw: Any = OmegaConf.to_container(node, resolve=False)
        result.problems.append(_failed_interpolation(key, str(raw[name]), error))
        return None
    if isinstance(value, DictConfig | ListConfig):
        return _container(value, key, result)
    return value


def _failed_interpolation(key: str, source: str, error: Exception) -> Problem:
    wanted = source.strip("${} ")
    group, own = wanted.partition(".")[0], key.partition(".")[0]
    if "issing" in type(error).__name__:
        text = f"takes its value from {wanted}, which must be given."
        return Problem(key, text, f"Give it with {wanted}=VALUE.")
    text = f"takes its value from {wanted}, and the chosen {group} has none."
    return Problem(key, text, f"Choose another {own} or another {group}: these two do not fit.")
