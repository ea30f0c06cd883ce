"""The one module that imports Hydra's private modules.

Hydra's public entry point ``hydra.main`` owns ``sys.argv``, has one primary config per program and
ends the process itself. flowexp has one per verb, checks a command line before it runs it, reads
options from run directories and starts jobs of its own; Hydra has no public names for these.
"""

import argparse
import copy
import functools
import pickle
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from hydra._internal import defaults_list
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.config_source import ConfigResult
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override

from flowexp import __version__
from flowexp.errors import UsageError

__all__ = [
    "ConfigRepository",
    "FileConfigSource",
    "Hydra",
    "Loader",
    "Repository",
    "SHIPPED",
    "UNCHANGING",
    "SweepHydra",
    "argument_parser",
    "context",
    "create_config_search_path",
    "note_overrides",
    "register_source",
    "set_values",
    "written_files",
]

SHIPPED = "shipped"
"""Scheme of the folders that nobody changes while the process lives."""

UNCHANGING = frozenset({SHIPPED, "pkg", "structured"})
"""Schemes of what stays the same while the process lives."""

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

    def load_config(self, config_path: str) -> ConfigResult | None:
        """A copy of an option and its defaults; what cannot change is read once per process."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.scheme() not in UNCHANGING:
            return super().load_config(config_path)
        # Reading a pickle takes a fifth of the time of a deep copy.
        pickled = _pickled(source.provider, f"{source.scheme()}://{source.path}", config_path)
        found: ConfigResult = pickle.loads(pickled)
        return found


@functools.cache
def _pickled(provider: str, path: str, config_path: str) -> bytes:
    """An option of one source as Hydra's repository gives it."""
    alone = ConfigSearchPathImpl()
    alone.append(provider, path)
    return pickle.dumps(ConfigRepository(alone).load_config(config_path))


class Loader(ConfigLoaderImpl):
    """Hydra's composition over such a repository.

    Hydra copies what it merges, since its cache holds it too; here the repository hands out copies.
    """

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = Repository(config_search_path)

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        return super()._load_single_config(default, getattr(repo, "delegate", repo))

    @staticmethod
    def _embed_result_config(ret: ConfigResult, package_override: str | None) -> ConfigResult:
        package = ret.header["package"] if package_override is None else package_override
        if not package:
            return ret
        outer = OmegaConf.create()
        with flag_override(outer, "no_deepcopy_set_nodes", True):
            OmegaConf.update(outer, package, ret.config, merge=False)
        ret.config = outer
        return ret


def written_files(
    loader: Loader, config_name: str, overrides: Sequence[str]
) -> list[tuple[str, str, Any]]:
    """The files of a composition in the order in which they are merged: name, package, content.

    A file is named as on a search path, ``experiment/cifar10/edm``; the keys of its content start
    at the root of the config, and its package is the key that it fills, empty for the root.
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
        (
            str(default.config_path),
            str(default.package or ""),
            loader._load_single_config(default, repository).config,
        )
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


class _Parser(argparse.ArgumentParser):
    """Parses Hydra's options and keeps unknown ones, such as ``--lr=0.1``, as overrides.

    :func:`flowexp.config.check.check` reports these with the override to write instead.
    """

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401
        own, dashed = self._split(list(args or ()))
        parsed = super().parse_intermixed_args(own, namespace)
        parsed.overrides += dashed
        return parsed

    def _split(self, arguments: list[str]) -> tuple[list[str], list[str]]:
        """Hydra's arguments, and the unknown options with their values."""
        own: list[str] = []
        dashed: list[str] = []
        while arguments:
            text = arguments.pop(0)
            if self._is_known(text):
                own.append(text)
                continue
            takes = (
                arguments and "=" not in f"{text}{arguments[0]}" and self._is_known(arguments[0])
            )
            dashed.append(f"{text}={arguments.pop(0)}" if takes else text)
        return own, dashed

    def _is_known(self, text: str) -> bool:
        """Whether it is one of Hydra's options, the beginning of one, or not an option."""
        name = text.partition("=")[0]
        if not re.match(r"--?[A-Za-z]", text):
            return True
        options = [o for o in self._option_string_actions if o != "--run"]  # which is run=DIR here
        return name in options or (name[:2] == "--" and any(o.startswith(name) for o in options))

    def error(self, message: str) -> NoReturn:
        raise UsageError(
            f"{message}.",
            key=self.prog,
            remedy=f"Write overrides as KEY=VALUE; {self.prog} --help lists the keys.",
        )


def argument_parser(verb: str) -> argparse.ArgumentParser:
    """The parser of Hydra's command-line options, for the usage of ``flowexp VERB``.

    It raises :class:`~flowexp.errors.UsageError` instead of exiting.
    """
    parser: argparse.ArgumentParser = get_args_parser()
    parser.__class__ = _Parser
    parser.prog = f"flowexp {verb}"
    for action in parser._actions:
        if isinstance(action, argparse._VersionAction):
            action.version = f"flowexp {__version__}"
    return parser


def context(config: Any, loader: Loader) -> HydraContext:  # noqa: ANN401 - of an untyped library
    """What a launcher needs to compose its jobs' configs."""
    return HydraContext(config_loader=loader, callbacks=Callbacks(config))


class SweepHydra(Hydra):
    """Hydra's entry point, which also keeps the results of all jobs of a sweep.

    Attributes:
        returned: One entry per launched job, including failed ones.
        sweep_directory: The folder of the sweep; empty before it starts.
    """

    def __init__(self, task_name: str, config_loader: Loader) -> None:
        super().__init__(task_name=task_name, config_loader=config_loader)
        self.returned: list[JobReturn] = []
        self.sweep_directory = ""

    def multirun(
        self,
        config_name: str | None,
        task_function: TaskFunction,
        overrides: list[str],
        with_log_configuration: bool = True,
    ) -> Any:  # noqa: ANN401 - what the sweeper returns
        """Run a sweep as Hydra does; the sweeper raises only the first failure."""
        config = self.compose_config(
            config_name=config_name,
            overrides=overrides,
            with_log_configuration=with_log_configuration,
            run_mode=RunMode.MULTIRUN,
        )
        self.sweep_directory = str(config.hydra.sweep.dir)
        callbacks = Callbacks(config)
        callbacks.on_multirun_start(config=config, config_name=config_name)
        sweeper: Any = Plugins.instance().instantiate_sweeper(
            config=config,
            hydra_context=HydraContext(config_loader=self.config_loader, callbacks=callbacks),
            task_function=task_function,
        )
        if hasattr(sweeper, "launcher"):  # Hydra's own; optimising sweepers handle failures
            sweeper.launcher = _KeepingLauncher(sweeper.launcher, self.returned)
        swept = sweeper.sweep(arguments=OmegaConf.to_container(config.hydra.overrides.task))
        callbacks.on_multirun_end(config=config, config_name=config_name)
        return swept


class _KeepingLauncher:
    """A launcher that keeps the results of its jobs and raises the first failure among them.

    Hydra's sweeper would also raise it, but print all overrides of that job first.
    """

    def __init__(self, launcher: Any, returned: list[JobReturn]) -> None:  # noqa: ANN401
        self._launcher = launcher
        self._returned = returned

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:  # noqa: ANN401
        results = self._launcher.launch(job_overrides, initial_job_idx=initial_job_idx)
        self._returned += results
        for result in results:
            if result.status == JobStatus.FAILED:
                raise result._return_value
        return results
