"""The sources of config options that Hydra does not have: flowexp's own groups, and ``run=DIR``.

Every verb that starts from a run has the option ``run`` in its groups: ``sampler: run`` is the
sampler of that run's stored config, so ``eval run=DIR sampler.steps=10`` changes one number of it
and ``eval run=DIR sampler=dopri5`` replaces it. The options come from the run directory's own
files, not from today's yaml files. ``recipe=DIR`` takes them from another folder with the same two
files, while ``run`` still names the weights: one training serves recipes that differ in
sampler, guidance or task.
"""

import copy
import functools
import re
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from flowexp.config.hydra_internals import SHIPPED, FileConfigSource, register_source
from flowexp.config.later_options import LATER_GROUPS, option_file
from flowexp.config.overrides import parse, texts
from flowexp.config.run_folders import CONFIG, MANIFEST, is_run
from flowexp.config.schema import values_of_training
from flowexp.config.stored import choices_of, read_stored
from flowexp.errors import UsageError
from flowexp.tree import leaves, select

__all__ = ["CONFIG", "MANIFEST", "RunSource", "ShippedSource", "run_in", "runs_by_key",
           "runs_in"]  # fmt: skip

_OPTION = "run"
_VALUES = "stored_values"


class RunSource(ConfigSource):
    """Serves ``<group>/run`` from ``config.yaml`` and ``manifest.json`` of a run directory."""

    @staticmethod
    def scheme() -> str:
        """The prefix of this source in the search path: ``run://``."""
        return "run"

    def available(self) -> bool:
        """Whether the directory is a run directory; without a directory, nothing is served."""
        return not self.path or is_run(Path(self.path))

    def is_group(self, config_path: str) -> bool:
        """Whether the stored config has this group or a group inside it."""
        group = config_path.strip("/")
        return any(g == group or g.startswith(group + "/") for g in self._groups)

    def is_config(self, config_path: str) -> bool:
        """Whether this is ``<group>/run`` of a stored group, or the values beside the groups."""
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        if (group, name) == ("", _VALUES):
            return True
        return name == _OPTION and (not self.path or group in self._groups)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The one option of a stored group."""
        group = config_path.strip("/")
        if results_filter != ObjectType.GROUP and self.is_config(f"{group}/{_OPTION}"):
            return [_OPTION]
        return []

    def load_config(self, config_path: str) -> ConfigResult:
        """The stored node of the group, its sub-groups as defaults of their own.

        Raises:
            UsageError: The node is no plain values: it would have Hydra select or resolve more.
        """
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        if (group, name) == ("", _VALUES):
            return self._result(self._values())
        if self._is_later(group):
            return self._result(OmegaConf.load(option_file(group)))
        key = group.replace("/", ".")
        node = copy.deepcopy(select(self._config, key))
        node = {} if node is None else node
        if not isinstance(node, dict | list):
            self._refuse(key, f"holds {node!r}", "hold parts")
        self._require_values(node, key)
        inner = sorted(g for g in self._groups if g.startswith(group + "/"))
        defaults: list[Any] = ["_self_"]
        for name in (sub.removeprefix(group + "/") for sub in inner):
            if not isinstance(node, dict) or name not in node:
                continue
            # An option that was not chosen stays null, and can be chosen now.
            defaults.append({name: None if node[name] is None else _OPTION})
            if node[name] is not None:
                del node[name]
        if len(defaults) > 1:
            node = {"defaults": defaults, **node}
        return self._result(node)

    def _result(self, node: Any) -> ConfigResult:  # noqa: ANN401 -- of an untyped library
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{self.path}",
            config=OmegaConf.create(node),
            header={"package": None},
        )

    def _is_later(self, group: str) -> bool:
        """Whether the run was stored before there was this group."""
        return group in LATER_GROUPS and bool(self._config) and group not in self._config

    def _values(self) -> dict[str, Any]:
        """The values of a training beside the groups: seed, teacher, pairs ..."""
        found = {k: self._config[k] for k in values_of_training() if k in self._config}
        for key, value in found.items():
            self._require_values(value, key)
        return found

    def _require_values(self, node: object, key: str) -> None:
        if isinstance(node, dict) and "defaults" in node:
            self._refuse(f"{key}.defaults", "selects options", "select none")
        for name, value in leaves(node, key):
            if "${" in str(value):
                self._refuse(name, f"holds the interpolation {value!r}", "hold values")

    def _refuse(self, key: str, what: str, instead: str) -> NoReturn:
        raise UsageError(
            f"{Path(self.path) / CONFIG} {what} there; stored configs {instead}.",
            key=key,
            remedy="Nothing of it was run. Write values there if the file is yours.",
        )

    @functools.cached_property
    def _config(self) -> dict[str, Any]:
        if not self.path or not self.available():
            return {}
        content: dict[str, Any] = read_stored(Path(self.path) / CONFIG)
        # Hydra starts what stands under its own key.
        return {key: value for key, value in content.items() if key != "hydra"}

    @functools.cached_property
    def _groups(self) -> set[str]:
        found = {key for key, value in self._config.items() if isinstance(value, dict)}
        # Without a manifest that can be read, every group that holds something is there.
        found |= {g for g in choices_of(self.path) if not g.startswith("hydra")}
        found |= LATER_GROUPS.keys()
        # A name such as "override /hydra/launcher" would be an instruction.
        return {group for group in found if re.fullmatch(r"\w+(/\w+)*", str(group))}


def run_in(overrides: list[str]) -> str | None:
    """The run directory that the options ``run`` are read from; the first one of a sweep."""
    return next(iter(runs_in(overrides)), None)


def runs_in(overrides: list[str]) -> list[str]:
    """The run directories that the options ``run`` are read from; several for a sweep."""
    return runs_by_key(overrides)[1]


def runs_by_key(overrides: list[str]) -> tuple[str, list[str]]:
    """The key that names the runs of :func:`runs_in`, ``recipe``, else ``run`` or ``parent``."""
    for keys in (("recipe=",), ("run=", "parent=")):
        typed = [text for text in overrides if text.startswith(keys)][:1]
        runs = [text for override in parse(typed)[0] for text in texts(override)]
        if runs:
            return typed[0].partition("=")[0], runs
    return "run", []


class ShippedSource(FileConfigSource):
    """A folder of groups that nobody changes while the process lives: ``shipped://DIR``.

    A table composes hundreds of command lines from the same files, and Hydra asks the file system,
    for every option of every one of them, where it is; so answers are kept.
    """

    @staticmethod
    def scheme() -> str:
        """The prefix of this source in the search path."""
        return SHIPPED

    def is_group(self, config_path: str) -> bool:
        """Whether there is such a folder."""
        return _answer(self.path, "is_group", config_path)

    def is_config(self, config_path: str) -> bool:
        """Whether there is such a file."""
        return _answer(self.path, "is_config", config_path)


@functools.cache
def _answer(folder: str, question: str, config_path: str) -> bool:
    """What the method ``question`` of a folder's own source answers."""
    return bool(getattr(FileConfigSource("main", folder), question)(config_path))


register_source(RunSource)
register_source(ShippedSource)
