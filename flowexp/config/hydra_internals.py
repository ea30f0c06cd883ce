"""The one module that imports Hydra's private modules.

Hydra's public entry point ``hydra.main`` owns ``sys.argv``, has one primary config per program and
ends the process itself. flowexp has one per verb, checks a command line before it runs it, reads
options from run directories and starts jobs of its own; Hydra has no public names for these.
"""

import argparse
import copy
from collections.abc import Sequence
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig

__all__ = [
    "FileConfigSource",
    "Hydra",
    "Loader",
    "Repository",
    "argument_parser",
    "context",
    "create_config_search_path",
    "note_overrides",
    "register_source",
    "set_values",
    "written_files",
]

_interpolation_map = defaults_list._create_interpolation_map


def _interpolation_map_if_needed(
    overrides: Any,  # noqa: ANN401 - of an untyped library
    defaults: list[Any],
    self_added: bool,
) -> DictConfig:
    """What defaults such as ``sampler: ${task}_sampler`` refer to.

    Hydra builds it for every file of a composition, a quarter of the time that one takes.
    """
    if any(default.is_interpolation() for default in defaults):
        return _interpolation_map(overrides, defaults, self_added)
    return DictConfig({})


defaults_list._create_interpolation_map = _interpolation_map_if_needed  # type: ignore[assignment]
register_source = SourcesRegistry.instance().register
set_values = ConfigLoaderImpl._apply_overrides_to_config


class Repository(ConfigRepository):
    """What can be selected on a search path.

    Hydra copies it before every composition and every group it lists. What it may change on the
    copy is which sources there are, not the sources: a deep copy of all registered schemas took
    most of the time of ``--help``.
    """

    def __deepcopy__(self, memo: dict[int, object]) -> "Repository":
        return copy.copy(self)


class Loader(ConfigLoaderImpl):
    """Hydra's composition over such a repository."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = Repository(config_search_path)


def written_files(
    loader: Loader, config_name: str, overrides: Sequence[str]
) -> list[tuple[str, Any]]:
    """The files of a composition in the order in which they are merged, each with what it sets.

    A file is named as on a search path, ``experiment/cifar10/edm``; what it sets has keys from the
    root of the config.
    """
    parsed, repository = loader._parse_overrides_and_create_caching_repo(
        config_name, list(overrides)
    )
    defaults = defaults_list.create_defaults_list(
        repo=repository,
        config_name=config_name,
        overrides_list=parsed,
        prepend_hydra=True,
        skip_missing=False,
    ).defaults
    return [
        (str(default.config_path), loader._load_single_config(default, repository).config)
        for default in defaults
    ]


def note_overrides(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Record overrides in the ``hydra`` node as a composition does."""
    job = config.hydra.job
    form = job.config.override_dirname
    config.hydra.overrides.task = [override.input_line for override in overrides]
    job.override_dirname = get_overrides_dirname(
        overrides=list(overrides),
        kv_sep=form.kv_sep,
        item_sep=form.item_sep,
        exclude_keys=form.exclude_keys,
    )


def argument_parser(verb: str) -> argparse.ArgumentParser:
    """The parser of Hydra's command-line options, for the usage of ``flowexp VERB``."""
    parser: argparse.ArgumentParser = get_args_parser()
    parser.prog = f"flowexp {verb}"
    return parser


def context(config: Any, loader: Loader) -> HydraContext:  # noqa: ANN401 - of an untyped library
    """What a launcher needs to compose its jobs' configs."""
    return HydraContext(config_loader=loader, callbacks=Callbacks(config))
