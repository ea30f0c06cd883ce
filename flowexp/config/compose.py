"""One search path and one loader for every verb."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig

from flowexp.config.loader import RunAwareLoader, with_run
from flowexp.config.locations import conf_dir
from flowexp.config.shipped_source import ShippedSource

__all__ = ["compose", "repository", "search_path", "with_run"]


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


def repository(path: ConfigSearchPath) -> ConfigRepository:
    """What can be selected on a search path."""
    return ConfigRepository(path)


def compose(
    config_name: str,
    overrides: Sequence[str],
    *,
    path: ConfigSearchPath | None = None,
    mode: Any = RunMode.RUN,  # noqa: ANN401 - an enum of an untyped library
) -> DictConfig:
    """The composed config of one job, with the ``hydra`` node.

    Args:
        config_name: Primary config: ``train``, ``eval`` ...
        overrides: Command-line overrides.
        path: Search path; flowexp's own by default.
        mode: Hydra's run mode; MULTIRUN tolerates swept values.

    Raises:
        hydra.errors.HydraException: The overrides do not fit the config.
    """
    setup_globals()
    loader = RunAwareLoader(path or search_path())
    return loader.load_configuration(
        config_name=config_name, overrides=list(overrides), run_mode=mode, from_shell=True
    )
