"""Hydra's launcher of the running verb, for other jobs than a sweep's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig

from flowexp.config.hydra_internals import context
from flowexp.config.loader import RunAwareLoader, search_path

__all__ = ["ChosenLauncher", "LauncherError", "given_config_dir", "jobs_at_once"]


def jobs_at_once(config: Mapping[str, Any] | DictConfig) -> int | None:
    """The number of jobs that the launcher runs at once on this machine; None if unknown."""
    jobs: int | None = (config.get("launcher") or {}).get("sharing")
    return jobs


def given_config_dir() -> str | None:
    """The folder of further groups that the running verb was given, or None."""
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider == "command-line":
            return str(source.path)
    return None


class LauncherError(RuntimeError):
    """The engine that runs jobs failed, rather than a job; what it says is the message."""


class ChosenLauncher:
    """Hydra's launcher of the running verb, with other jobs than a sweep's.

    To be made within a job of that verb.

    Args:
        task: Called for each job with the verb's config and the job's overrides on top; must be
            picklable, must not raise, and tells whether the job is done.
    """

    def __init__(self, task: Callable[[Any], bool]) -> None:
        running = HydraConfig.get()
        own = [o for o in running.overrides.hydra if not o.startswith("hydra.mode=")]
        # Jobs have directories of their own; Hydra's would be empty.
        here = [*own, "hydra.mode=MULTIRUN", "hydra.sweep.subdir=."]
        self._overrides = list(running.overrides.task)
        loader = RunAwareLoader(search_path(given_config_dir()))
        config = loader.load_configuration(
            str(running.job.config_name), [*self._overrides, *here], RunMode.MULTIRUN
        )
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context(config, loader), task_function=task, config=config
        )
        self._at_once = jobs_at_once(config) or 0
        self._started = 0

    def launch(self, jobs: Sequence[Sequence[str]]) -> list[bool]:
        """Run one job for each list of overrides; returns their results when all have ended.

        Raises:
            LauncherError: A worker was killed, or none could be had.
        """
        # A job that runs alone has all cores.
        few = [f"launcher.sharing={len(jobs)}"] if len(jobs) < self._at_once else []
        common = [*self._overrides, *few]
        complete = [[*common, *overrides] for overrides in jobs]
        try:
            done = self._launcher.launch(complete, initial_job_idx=self._started)
        except Exception as error:
            # Each engine has exceptions of its own for a worker that was lost.
            name = type(self._launcher).__name__
            raise LauncherError(f"{name}: {type(error).__name__}: {error}") from error
        self._started += len(complete)
        return [job.status == JobStatus.COMPLETED and bool(job.return_value) for job in done]
