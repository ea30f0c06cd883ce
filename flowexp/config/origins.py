"""The origin of every value of a composed config: an option, a recipe or the command line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from hydra.core.utils import setup_globals
from omegaconf import OmegaConf

from flowexp.config import schema
from flowexp.config.hydra_internals import Loader, written_files
from flowexp.config.loader import RunAwareLoader, search_path
from flowexp.config.override_text import override
from flowexp.config.overrides import parse
from flowexp.tree import leaves

__all__ = ["annotated", "overruled", "origins_of"]

_COMMAND = "command line"


@dataclass(frozen=True)
class _Value:
    """A value that a file sets, with the file's group (None = a primary config) and option."""

    value: Any
    group: str | None
    option: str

    @property
    def words(self) -> str:
        """The override that chooses the file: ``experiment=cifar10/edm``."""
        return f"{self.group}={self.option}"


def origins_of(
    config_name: str, overrides: Sequence[str], *, config_dir: str | None = None
) -> dict[str, str]:
    """The origins of values that are not set by the option of their own group.

    By dotted key, such as ``experiment=cifar10/edm`` or ``command line``.
    """
    loader = _loader(config_name, overrides, config_dir)
    found = {
        key: values[-1].words
        for key, values in _written(loader, config_name, overrides).items()
        if values[-1].group is not None and not _is_own(key, values[-1].group)
    }
    for typed in parse(overrides)[0]:
        found[typed.key_or_group] = _COMMAND
    return found


def annotated(text: str, origins: Mapping[str, str], *, package: str | None = None) -> str:
    """Yaml text with a comment after every value that has an origin.

    ``package`` is the dotted key at which the text starts.
    """
    lines = text.splitlines()
    root = yaml.compose(text)
    for key, line in () if root is None else _value_lines(root, package or ""):
        if key in origins:
            lines[line] += f"  # {origins[key]}"
    return "\n".join(lines) + "\n"


def overruled(
    config_name: str, overrides: Sequence[str], *, config_dir: str | None = None
) -> Iterator[str]:
    """A sentence for each value of an explicitly chosen option that a recipe overrides."""
    parsed, _ = parse(overrides)
    named = {str(o.key_or_group): str(o.value()) for o in parsed if not o.is_sweep_override()}
    options = {key for key in named if "." not in key} - set(schema.values_of_training())
    if len(options) < 2 or not options & {"experiment", "debug", "budget"}:
        return
    given = set(named)
    loader = _loader(config_name, overrides, config_dir)
    for key, values in _written(loader, config_name, overrides).items():
        own = [v for v in values if v.group in named and _is_own(key, v.group)]
        last = values[-1]
        if not own or last.group is None or _is_own(key, last.group) or key in given:
            continue
        if own[-1].option == named[str(own[-1].group)] and own[-1].value != last.value:
            yield (
                f"{last.words} sets {key}={last.value} over the {own[-1].value} of "
                f"{own[-1].words}; add {override(key, own[-1].value)} to keep that."
            )


def _loader(config_name: str, overrides: Sequence[str], config_dir: str | None) -> Loader:
    """Hydra's loader over the options that these overrides choose from."""
    return RunAwareLoader(search_path(config_dir)).with_run_of(config_name, overrides)


def _written(loader: Loader, config_name: str, overrides: Sequence[str]) -> dict[str, list[_Value]]:
    """The values that files set, by dotted key, in the order in which they are merged."""
    setup_globals()
    schema.register(config_name)
    found: dict[str, list[_Value]] = {}
    for file, _, content in written_files(loader, config_name, overrides):
        group, _, option = file.rpartition("/")
        if file.startswith("experiment/"):
            group, option = "experiment", file.removeprefix("experiment/")
        plain = OmegaConf.to_container(content, resolve=False)
        for key, value in leaves(plain):
            found.setdefault(key, []).append(_Value(value, group or None, option))
    return found


def _is_own(key: str, group: str) -> bool:
    """Whether a key belongs to a group, ``sampler.time_grid.rho`` to ``sampler/time_grid``."""
    return f"{key}.".startswith(f"{group.replace('/', '.')}.")


def _value_lines(node: yaml.Node, key: str) -> Iterator[tuple[str, int]]:
    """The dotted key and the last line of every value that ends where its line does."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _value_lines(value, f"{key}.{name.value}" if key else str(name.value))
    elif isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">"):
        yield key, node.end_mark.line
    elif isinstance(node, yaml.SequenceNode):
        yield key, node.start_mark.line - (0 if node.flow_style else 1)
