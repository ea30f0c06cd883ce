"""One search path and one loader for every verb."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig

from flowexp.config import schema
from flowexp.config.hydra_internals import new_search_path
from flowexp.config.loader import RunAwareLoader
from flowexp.config.locations import conf_dir
from flowexp.config.shipped_source import ShippedSource

__all__ = ["compose", "search_path"]


def search_path(config_dir: str | None = None) -> ConfigSearchPath:
    """The groups of flowexp, preceded by an outside folder of groups if one is given."""
    schema.register()
    path = new_search_path(f"{ShippedSource.scheme()}://{conf_dir()}")
    if config_dir is not None:
        path.prepend(
            provider="command-line",
            path=f"file://{Path(config_dir).resolve()}",
            anchor=SearchPathQuery(provider="schema"),
        )
    return path


def compose(
    config_name: str,
    overrides: Sequence[str],
    *,
    loader: RunAwareLoader | None = None,
) -> DictConfig:
    """The composed config of one job, with the ``hydra`` node.

    Args:
        config_name: Primary config: ``train``, ``eval`` ...
        overrides: Command-line overrides.
        loader: Over which search path; flowexp's own by default.

    Raises:
        hydra.errors.HydraException: The overrides do not fit the config.
    """
    setup_globals()
    return (loader or RunAwareLoader(search_path())).load_configuration(
        config_name=config_name, overrides=list(overrides), run_mode=RunMode.RUN, from_shell=True
    )
