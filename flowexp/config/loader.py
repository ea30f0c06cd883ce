"""Hydra's loader over flowexp's sources; equal choices of options are composed once per process.

A table checks hundreds of command lines that choose the same options and differ in numbers. A
composition takes 0.1 s, nearly all of which goes into finding out which files the choices mean.
"""

import copy
import os
import pickle
from collections.abc import Hashable, Sequence
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import DictConfig

from flowexp.config.run_source import CONFIG, MANIFEST, RunSource, run_in
from flowexp.config.schema import register, starts_from_run
from flowexp.config.shipped_source import ShippedSource

__all__ = ["RunAwareLoader", "with_run"]

_RUN = f"{RunSource.scheme()}://"
_UNCHANGING = (f"{ShippedSource.scheme()}://", "pkg://", "structured://")
_REMEMBERED = 256
_COMPOSED: dict[Hashable, bytes] = {}


class _Repository(ConfigRepository):
    """Hydra's repository, which Hydra copies before every composition and every group it lists.

    What it may change on the copy is which sources there are, not the sources: a deep copy of all
    registered schemas took most of the time of ``--help``.
    """

    def __deepcopy__(self, memo: dict[int, object]) -> "_Repository":
        return copy.copy(self)


class _Loader(ConfigLoaderImpl):
    """Hydra's loader over such a repository."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = _Repository(config_search_path)


class RunAwareLoader(_Loader):
    """Hydra's loader, with the run named in the overrides on its search path.

    It looks anew at every composition, so a sweep over ``run=a,b`` sees each run's own config.
    """

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose as Hydra does; see :class:`RunSource` for what ``run=`` adds."""
        register(str(config_name))
        # A verb that starts from a run can show its help before one is named.
        run = run_in(overrides) or ("" if starts_from_run(str(config_name)) else None)
        loader = _Loader(with_run(self.config_search_path, run))
        how = (run_mode, from_shell, validate_sweep_overrides)
        contents = _contents(loader.config_search_path)
        parsed = OverridesParser.create().parse_overrides(overrides)
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
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        _tell_hydra(config, parsed)
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
        elif name.startswith(_UNCHANGING):
            found.append(name)
        else:
            return None
    return tuple(found)


def _tell_hydra(config: DictConfig, overrides: Sequence[Override]) -> None:
    """What Hydra notes of a command line beside its result."""
    job = config.hydra.job
    dirname = job.config.override_dirname
    config.hydra.overrides.task = [override.input_line for override in overrides]
    config.hydra.runtime.cwd = os.getcwd()
    job.override_dirname = get_overrides_dirname(
        overrides=list(overrides),
        kv_sep=dirname.kv_sep,
        item_sep=dirname.item_sep,
        exclude_keys=dirname.exclude_keys,
    )


def with_run(search_path: ConfigSearchPath, run: str | None) -> ConfigSearchPath:
    """A search path that also serves the options of a run directory."""
    if run is None:
        return search_path
    extended = copy.deepcopy(search_path)
    schema = extended.get_path().pop(-1)
    extended.append(provider="run", path=f"{_RUN}{Path(run).resolve() if run else ''}")
    extended.get_path().append(schema)
    return extended
