"""A verb as a Hydra application: overrides, sweeps, ``--cfg``, ``--info``, launchers."""

import argparse
import errno
import io
import logging
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from flowexp.config.check import check, own_choices
from flowexp.config.completion_scripts import script
from flowexp.config.failures import explain, in_words
from flowexp.config.from_run import primary_config
from flowexp.config.help import verb_help
from flowexp.config.here import missing_here
from flowexp.config.hydra_internals import SweepHydra, argument_parser
from flowexp.config.launcher import given_config_dir, jobs_at_once
from flowexp.config.loader import RunAwareLoader, search_path
from flowexp.config.origins import annotated, origins_of
from flowexp.config.override_text import typed
from flowexp.config.overrides import in_full, parse, sweep_values, targets_in
from flowexp.config.problems import Problem
from flowexp.config.sweep import Sweep, remove_unused
from flowexp.config.trust import declared_in, trusting
from flowexp.errors import NotWrittenError, StoppedError, UsageError
from flowexp.processes import several_started
from flowexp.progress import shown
from flowexp.threads import shared_by

__all__ = ["Job", "examine", "launch", "only_shows"]

log = logging.getLogger(__name__)
_ONE_BY_ONE = ".BasicLauncher"


@dataclass(frozen=True)
class Job:
    """One job of a verb, with its plain, resolved config.

    Attributes:
        directory: The output directory; it exists.
        overrides: As typed (of a sweep: this job's own).
        choices: Chosen option of every group.
        number: Number within a sweep, or None.
    """

    config: dict[str, Any]
    directory: Path
    overrides: list[str] = field(default_factory=list)
    choices: dict[str, str] = field(default_factory=dict)
    number: int | None = None


class _Task:
    """What Hydra calls for each job; picklable, so that launchers can send it elsewhere."""

    def __init__(
        self, run: Callable[[Job], Any], *, multirun: bool, swept: Collection[str] = ()
    ) -> None:
        self.run = run
        self.multirun = multirun
        self.swept = swept
        self.failure: Exception | None = None
        self.stopped: StoppedError | None = None

    def __call__(self, config: DictConfig) -> Any:  # noqa: ANN401 - a verb's result
        if self.stopped is not None:  # the request was about the whole sweep
            raise self.stopped
        hydra = HydraConfig.get()
        plain = OmegaConf.to_container(config, resolve=True)
        job = Job(
            config=plain,  # type: ignore[arg-type]  # the root of a config is a mapping
            directory=Path(hydra.runtime.output_dir),
            overrides=list(hydra.overrides.task),
            choices=own_choices(hydra.runtime.choices),
            number=int(hydra.job.num) if self.multirun else None,
        )
        if self.multirun:
            own = [o for o in job.overrides if o.partition("=")[0].lstrip("+") in self.swept]
            print(f"\njob {job.number}: {shlex.join(own or job.overrides)}", flush=True)
        declared = declared_in(targets_in(job.overrides), config_dir=given_config_dir())
        try:
            sharing = jobs_at_once(job.config) if self.multirun else None
            with trusting(declared), shared_by(sharing), _progress_of(job):
                return self.run(job)
        except Exception as error:
            remove_unused(job.directory)
            if isinstance(error, StoppedError):
                self.stopped = error
            if not isinstance(error, UsageError | StoppedError | NotWrittenError):
                explain(error, job.config)
            if self.multirun:
                if self.stopped is None:  # else the command says it when all has ended
                    said = error if isinstance(error, UsageError) else in_words(error)
                    print(f"job {job.number} failed: {said}", file=sys.stderr, flush=True)
                raise
            # Hydra would print the overrides before raising; the caller says what is needed.
            self.failure = error
            return None


def _progress_of(job: Job) -> AbstractContextManager[None]:
    """For a job that runs beside others: progress in lines that start with its number."""
    alone = job.number is None or HydraConfig.get().launcher["_target_"].endswith(_ONE_BY_ONE)
    return nullcontext() if alone else shown(label=f"job {job.number}")


def launch(
    verb: str,
    run: Callable[[Job], Any],
    arguments: Sequence[str],
    *,
    config_name: str | None = None,
    after_sweep: Callable[[Sweep], None] | None = None,
) -> None:
    """Check the arguments after a verb, then run its job or jobs through Hydra.

    The primary config has the verb's own name by default; :func:`in_full` writes out short forms.
    ``after_sweep`` is called at the end of a sweep in which at least one job succeeded.

    Raises:
        ConfigError: The command line is not sound; nothing was done.
        UsageError: A job, or every job of a sweep, found an error that the user can fix.
        JobsFailedError: Jobs of a sweep failed.
    """
    parser = argument_parser(verb)
    args = parser.parse_intermixed_args(list(arguments))
    args.overrides = in_full(verb, args.overrides)
    name = primary_config(args.config_name or config_name or verb, args.overrides)
    if args.cfg and args.multirun:
        raise UsageError(
            "it shows the config of one job, but -m runs several.",
            key="--cfg",
            remedy="Leave out -m, and give every key one value.",
        )
    if not only_shows(args) or args.cfg:
        checked = _checked(name, args)
        if args.multirun:
            _refuse_one_folder(args.overrides)
            _refuse_subprocess_strategies(checked)
    over = {str(o.key_or_group) for o in parse(args.overrides)[0] if o.is_sweep_override()}
    swept = _run_hydra(name, args, parser, _Task(run, multirun=args.multirun, swept=over))
    if swept is not None:
        swept.conclude(after_sweep)


def examine(
    verb: str,
    report: Callable[[dict[str, Any]], None],
    arguments: Sequence[str],
    *,
    config_name: str,
) -> None:
    """Check a command line of another verb and report on its (first) job's plain config.

    Nothing is written.

    Raises:
        ConfigError: The command line is not sound.
    """
    parser = argument_parser(verb)
    args = parser.parse_intermixed_args(list(arguments))
    args.overrides = in_full(verb, args.overrides)
    config_name = primary_config(config_name, args.overrides)
    if only_shows(args):
        _run_hydra(config_name, args, parser, _Task(lambda job: None, multirun=False))
    else:
        with trusting(declared_in(targets_in(args.overrides), config_dir=args.config_dir)):
            report(_checked(config_name, args))


def only_shows(args: argparse.Namespace) -> bool:
    """Whether a command line asks for help or a config instead of a job."""
    shown = args.help or args.hydra_help or args.shell_completion or args.cfg
    return bool(shown or args.info is not None)


def _checked(name: str, args: argparse.Namespace) -> dict[str, Any]:
    also = _missing_for_all if args.multirun else None if args.cfg else missing_here
    where, multirun = args.config_dir, args.multirun
    return check(name, args.overrides, multirun=multirun, config_dir=where, also=also).sound()


def _missing_for_all(config_name: str, config: Mapping[str, Any]) -> Iterator[Problem]:
    """What no job of a sweep can do without; a run that one of them names is that job's own."""
    return (p for p in missing_here(config_name, config) if p.key != "run")


def _refuse_one_folder(overrides: Sequence[str]) -> None:
    """Every job of a sweep has a folder of its own, below ``dirs.sweep``; ``dirs.run`` has none."""
    for override in parse(overrides)[0]:
        if override.key_or_group == "dirs.run":
            folder = sweep_values(override)[0] if override.is_sweep_override() else override.value()
            raise UsageError(
                "the jobs of a sweep do not share one folder.",
                key="dirs.run",
                remedy=f"Name the folder above them: {typed('dirs.sweep', folder)} gives the jobs "
                "the folders 0, 1, ... in it.",
            )


def _refuse_subprocess_strategies(config: dict[str, Any]) -> None:
    """Lightning's child processes would rerun the whole sweep, each in its own folder."""
    trainer = config.get("trainer") or {}
    strategy = str(trainer.get("strategy", "auto"))
    devices = trainer.get("devices", 1)
    tasks = (config.get("launcher") or {}).get("tasks", 1)
    started_outside = several_started() is not None or tasks == devices
    several = (isinstance(devices, int) and devices > 1) or "ddp" in strategy
    if several and not started_outside:
        raise UsageError(
            f"{devices} devices in a sweep would start processes that rerun the whole sweep.",
            key="trainer.devices",
            remedy=f"Use launcher=slurm launcher.gpus={devices} launcher.tasks={devices}, start "
            "the sweep under torchrun, or sweep over single-device runs.",
        )


def _run_hydra(
    config_name: str, args: argparse.Namespace, parser: argparse.ArgumentParser, task: _Task
) -> Sweep | None:
    loader = RunAwareLoader(search_path(args.config_dir))
    hydra = SweepHydra(task_name=parser.prog.replace(" ", "_"), config_loader=loader)
    GlobalHydra.instance().initialize(hydra)
    JobRuntime.instance().set("name", parser.prog.split()[-1])
    try:
        if args.help:
            print(verb_help(config_name, args.overrides, loader=loader))
        elif args.hydra_help:
            hydra.hydra_help(config_name=config_name, args_parser=parser, args=args)
        elif args.cfg:
            _show_config(hydra, config_name, args)
        elif args.shell_completion:
            print(script(args.overrides))
        elif args.info is not None:
            hydra.show_info(args.info, config_name=config_name, overrides=args.overrides)
        else:
            mode = RunMode.MULTIRUN if args.multirun else RunMode.RUN
            start = hydra.multirun if args.multirun else hydra.run
            overrides = [*args.overrides, f"hydra.mode={mode.name}"]
            try:
                start(config_name=config_name, task_function=task, overrides=overrides)
            except StoppedError:
                raise
            except Exception as error:
                swept = Sweep.of(hydra)
                if swept.failed:
                    return swept
                raise (_unwritable(error) if isinstance(error, OSError) else error) from error
            if task.failure is not None:
                raise task.failure
            return Sweep.of(hydra) if args.multirun else None
    finally:
        GlobalHydra.instance().clear()
    return None


def _show_config(hydra: SweepHydra, config_name: str, args: argparse.Namespace) -> None:
    """Print the config as Hydra does; comments mark values that another group's option set."""
    shown = io.StringIO()
    with redirect_stdout(shown):
        hydra.show_cfg(
            config_name=config_name,
            overrides=args.overrides,
            cfg_type=args.cfg,
            package=args.package,
            resolve=args.resolve,
        )
    text = shown.getvalue()
    if args.cfg == "job":
        origins = origins_of(config_name, args.overrides, config_dir=args.config_dir)
        package = args.package if args.package != "_global_" else None
        text = annotated(text, origins, package=package)
    print(text, end="")


def _unwritable(error: OSError) -> Exception:
    """An output directory that cannot be created is an error the user can fix; others are not."""
    known = isinstance(error, PermissionError | NotADirectoryError | FileExistsError)
    if not known and error.errno not in (errno.EROFS, errno.ENAMETOOLONG):
        return error
    return UsageError(
        f"{error.filename} cannot be written ({error.strerror}).",
        key="dirs.run",
        remedy="Choose a folder you can write to, e.g. dirs.run=outputs/mine.",
    )
