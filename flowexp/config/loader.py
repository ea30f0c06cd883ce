"""Hydra's loader over flowexp's sources; equal choices of options are composed once per process.

A table checks hundreds of command lines that choose the same options and differ in numbers. A
composition takes 0.1 s, nearly all of which goes into finding out which files the choices mean.
"""

import copy
import os
import pickle
from collections.abc import Hashable, Sequence
from functools import partial
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobRuntime, setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from flowexp.config import conf_dir, schema
from flowexp.config.derived import register_derived
from flowexp.config.from_run import kept_choices, restore_derived, restore_model
from flowexp.config.hydra_internals import (
    UNCHANGING,
    Loader,
    create_config_search_path,
    note_overrides,
    set_values,
    written_files,
)
from flowexp.config.named_targets import with_additions, without_refused_keys
from flowexp.config.sources import CONFIG, MANIFEST, RunSource, ShippedSource, run_in
from flowexp.config.trained import register_trained
from flowexp.tree import leaves

__all__ = ["RunAwareLoader", "search_path", "with_run"]

register_derived()
register_trained()

_RUN = f"{RunSource.scheme()}://"
_REMEMBERED = 256
_COMPOSED: dict[Hashable, bytes] = {}


class RunAwareLoader(Loader):
    """Hydra's loader, with the run named in the overrides on its search path.

    It looks anew at every composition, so a sweep over ``run=a,b`` sees each run's own config.

    Attributes:
        remarks: What the last composition left out; see :func:`without_refused_keys`.
    """

    remarks: Sequence[str] = ()

    def compose(self, config_name: str, overrides: Sequence[str]) -> DictConfig:
        """The config of one job, with the ``hydra`` node.

        Raises:
            hydra.errors.HydraException: The overrides do not fit the config.
        """
        setup_globals()
        return self.load_configuration(config_name, list(overrides), RunMode.RUN)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose as Hydra does; see :class:`RunSource` for what ``run=`` adds."""
        name = str(config_name)
        schema.register(name)
        parser = OverridesParser.create()
        typed = parser.parse_overrides(overrides)
        kept = parser.parse_overrides(kept_choices(name, typed))
        parsed = with_additions([*kept, *typed], config_name=name)
        config = self._composed(
            config_name, parsed, (run_mode, from_shell, validate_sweep_overrides)
        )
        if parsed != typed:
            note_overrides(config, [o for o in typed if not o.is_hydra_override()])
        self.remarks = [
            *self._restored(config, name, typed),
            *without_refused_keys(
                config, typed, elsewhere=partial(self._set_elsewhere, name, parsed)
            ),
        ]
        return config

    def _set_elsewhere(self, config_name: str, parsed: Sequence[Override], part: str) -> set[str]:
        """The keys below a part that recipes and options of outer groups set."""
        overrides = [str(o.input_line) for o in parsed]
        files = written_files(self.with_run_of(config_name, overrides), config_name, overrides)
        return {
            key
            for _, package, content in files
            if not f"{package}.".startswith(f"{part}.")
            for key, _ in leaves(OmegaConf.to_container(content, resolve=False))
            if key.startswith(f"{part}.")
        }

    def _restored(self, config: DictConfig, name: str, typed: Sequence[Override]) -> list[str]:
        """Finish a training's config that was taken from a run; returns remarks about it."""
        if not (schema.trains(name) and schema.starts_from_run(name)):
            return []
        recipes = [str(o.input_line) for o in typed if o.key_or_group == "experiment"]
        remarks = []
        if recipes:
            recipe = RunAwareLoader(self.config_search_path).compose("train", recipes[-1:])
            remarks = restore_model(config, typed, recipe=recipe)
        restore_derived(config, typed, repo=self.repository)
        return remarks

    def with_run_of(self, config_name: str, overrides: Sequence[str]) -> Loader:
        """Hydra's loader over the same path and the run that the overrides name."""
        # A verb that starts from a run can show its help before one is named.
        run = run_in(list(overrides)) or ("" if schema.starts_from_run(config_name) else None)
        return Loader(with_run(self.config_search_path, run))

    def _composed(
        self, config_name: str | None, parsed: Sequence[Override], how: tuple[RunMode, bool, bool]
    ) -> DictConfig:
        overrides = [str(o.input_line) for o in parsed]
        loader = self.with_run_of(str(config_name), overrides)
        contents = _contents(loader.config_search_path)
        if contents is None or not all(map(_is_plain, parsed)):
            return loader.load_configuration(config_name, overrides, *how)
        chosen = [loader.repository.group_exists(o.key_or_group) for o in parsed]
        choices = [str(o.input_line) for o, group in zip(parsed, chosen, strict=True) if group]
        values = [o for o, group in zip(parsed, chosen, strict=True) if not group]
        key = (config_name, *choices, contents, how, JobRuntime.instance().get("name"))
        # LRU: re-insert so that the oldest entry is evicted first.
        composed = _COMPOSED.pop(key, None)
        if composed is None:
            composed = pickle.dumps(loader.load_configuration(config_name, choices, *how))
        _COMPOSED[key] = composed
        if len(_COMPOSED) > _REMEMBERED:
            del _COMPOSED[next(iter(_COMPOSED))]
        config: DictConfig = pickle.loads(composed)
        set_values(values, config)
        note_overrides(config, parsed)
        config.hydra.runtime.cwd = os.getcwd()
        return config


def _is_plain(override: Override) -> bool:
    """Whether it sets one value or chooses one option, and Hydra's own settings are not meant."""
    changes = override.type == OverrideType.CHANGE and not override.is_sweep_override()
    return changes and not override.is_hydra_override() and not isinstance(override.value(), dict)


def _contents(path: ConfigSearchPath) -> Hashable | None:
    """What a search path holds; None if its folders may change while the process lives."""
    found: list[Hashable] = []
    for source in path.get_path():
        name = str(source.path)
        if name.startswith(_RUN):
            folder = Path(name.removeprefix(_RUN))
            files = [folder / file for file in (CONFIG, MANIFEST)] if name != _RUN else []
            found.append((name, *(f.read_bytes() if f.is_file() else None for f in files)))
        elif name.partition("://")[0] in UNCHANGING:
            found.append(name)
        else:
            return None
    return tuple(found)


def search_path(config_dir: str | None = None) -> ConfigSearchPath:
    """The groups of flowexp, preceded by an outside folder of groups if one is given."""
    path = create_config_search_path(f"{ShippedSource.scheme()}://{conf_dir()}")
    if config_dir is not None:
        path.prepend(
            provider="command-line",
            path=f"file://{Path(config_dir).resolve()}",
            anchor=SearchPathQuery(provider="schema"),
        )
    return path


def with_run(search_path: ConfigSearchPath, run: str | None) -> ConfigSearchPath:
    """A search path that also serves the options of a run directory."""
    if run is None:
        return search_path
    extended = copy.deepcopy(search_path)
    schema = extended.get_path().pop(-1)
    extended.append(provider="run", path=f"{_RUN}{Path(run).resolve() if run else ''}")
    extended.get_path().append(schema)
    return extended
