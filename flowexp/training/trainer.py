"""Lightning's trainer, without what Lightning decides by itself from the environment.

A training is a function of configuration and seed, its state is in the run's own checkpoints, and
who takes part is said by :mod:`flowexp.processes`. What Lightning 2.6 does behind that, and what
becomes of it:

=====================================================  =============================================
detects SLURM, torchelastic, LSF or MPI, takes rank    off: :class:`_Environment` is given
and world size from it, checks ``srun`` and its
variables
on SLURM, SIGUSR1 saves ``hpc_ckpt_N.ckpt`` and calls  off: no handler of Lightning is set; signals
``scontrol requeue``; SIGTERM is passed over           are :class:`StopSignals`'
elsewhere, SIGTERM ends an epoch by an exception,      off, as before; the flag stays false
after a broadcast to the other processes
on SLURM, the newest ``hpc_ckpt_N.ckpt`` in the run    off: nothing is looked for
directory is restored; with OnExceptionCheckpoint,
its last file
``PL_TRAINER_X`` sets an argument X that is not        off: only for a class named Trainer
passed, such as max_steps or fast_dev_run
RANK, LOCAL_RANK, SLURM_PROCID or JSM_NAMESPACE_RANK   replaced by the rank in this training
at import decide who warns and logs (rank_zero_only)
variables of a training on several devices stay and    NODE_RANK and LOCAL_RANK of the first process
make the next one wait for processes                   stay, but do not count as others
``PL_GLOBAL_SEED`` seeds processes that it starts      without effect: every step seeds itself
a ModelCheckpoint, a logger, a progress bar, a model   off by arguments; ours take their place
summary, a sanity check of validation, a sampler
on Ctrl-C, ends the program with exit code 1           not reached: :class:`StopSignals` raises
``devices: auto`` in a notebook is one device          kept
OMP_NUM_THREADS, where it is not set, becomes a share  kept: several processes of one node would
of the cores in trainings on several devices           hinder each other
CUDA_DEVICE_ORDER becomes PCI_BUS_ID                   kept: the numbers of nvidia-smi
kills processes that it started soon after one failed  kept: they wait for a checkpoint to be there
=====================================================  =============================================
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.profilers import PassThroughProfiler

from flowexp.errors import UsageError
from flowexp.processes import Place, training_place
from flowexp.training.parts import TrainerSettings
from flowexp.training.precision import LossScaling

if TYPE_CHECKING:
    from flowexp.training.module import FlowModule

__all__ = ["RunTrainer", "place_of", "quiet_lightning", "require_devices"]

_LIGHTNING_WARNINGS = (
    ".*LeafSpec.*",  # its own use of torch
    ".*smaller than the logging interval.*",  # a short run still has its last row
    ".*ModelCheckpoint with manual optimization.*",  # weights after the step are what is wanted
    ".*no learning rate schedulers.*",  # lr_schedule acts in the step itself
)
_LIGHTNING_LOGGERS = (
    "pytorch_lightning.utilities.rank_zero",
    "pytorch_lightning.accelerators.cuda",
)


def place_of(settings: TrainerSettings) -> Place:
    """This process's place in a training.

    Raises:
        UsageError: Another number of processes was started than the settings ask for.
    """
    devices = settings.devices
    if isinstance(devices, str) and devices.isdecimal():
        count = int(devices)
    elif isinstance(devices, str) and devices not in ("auto", "-1"):
        count = len([name for name in devices.split(",") if name])
    elif devices in ("auto", "-1", -1):
        cuda = settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        count = torch.cuda.device_count() if cuda else 1
    else:
        count = devices if isinstance(devices, int) else len(devices)
    return training_place(devices=max(1, count), nodes=settings.num_nodes)


def require_devices(settings: TrainerSettings) -> None:
    """Refuse an accelerator, or a number of devices, that this computer does not have.

    Raises:
        UsageError: With Lightning's reason; or another number of processes was started.
    """
    place = place_of(settings)
    if settings.accelerator in ("auto", "cpu") and settings.devices in (1, "auto"):
        return
    try:
        with quiet_lightning():
            Trainer(
                **_hardware(settings),
                plugins=_Environment(place),
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
    except (MisconfigurationException, TypeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "").rstrip(".! ")
        key = "devices" if settings.accelerator in ("auto", "cpu") else "accelerator"
        raise UsageError(
            f"{reason}.",
            key=f"trainer.{key}",
            remedy="Use trainer.accelerator=auto trainer.devices=1.",
        ) from error


def _hardware(settings: TrainerSettings) -> dict[str, Any]:
    """What Lightning's trainer takes of the settings to choose devices."""
    devices = settings.devices
    return {
        "accelerator": settings.accelerator,
        "devices": devices if isinstance(devices, int | str) else list(devices),
        "num_nodes": settings.num_nodes,
        "strategy": settings.strategy,
    }


class RunTrainer(Trainer):
    """Trains a module for one epoch, which is the rest of its run."""

    def __init__(self, module: "FlowModule", *, place: Place | None = None) -> None:
        settings, callbacks = module.settings, module.ordered_callbacks()
        place = place_of(settings) if place is None else place
        environment = _Environment(place)
        super().__init__(
            **_hardware(settings),
            plugins=[environment, *([LossScaling()] if settings.precision == "16-mixed" else [])],
            callbacks=callbacks,
            profiler=_NoProfiler(),
            logger=list(module.parts.loggers.values()),
            log_every_n_steps=settings.log_every,
            max_epochs=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            enable_progress_bar=any(isinstance(item, ProgressBar) for item in callbacks),
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=module.run.path,
        )
        rank_zero_only.rank = place.rank  # type: ignore[attr-defined]
        # A path that the user manages, and there is none: no other is looked for.
        self._checkpoint_connector._user_managed = True
        self._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


class _Environment(LightningEnvironment):
    """Says to Lightning which process this is; it starts the others where nobody has."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place
        self._world_size, self._global_rank = place.world_size, place.rank

    @property
    def creates_processes_externally(self) -> bool:
        return self._place.started

    @property
    def main_address(self) -> str:
        return self._place.address or super().main_address

    @property
    def main_port(self) -> int:
        return self._place.port or super().main_port

    def set_global_rank(self, rank: int) -> None:
        super().set_global_rank(self._place.rank if self._place.started else rank)

    def local_rank(self) -> int:
        return self._place.local_rank if self._place.started else super().local_rank()

    def node_rank(self) -> int:
        return self._place.node if self._place.started else super().node_rank()


class _NoProfiler(PassThroughProfiler):
    """Measures nothing, without the cost of the contexts that Lightning enters 50 times a step."""

    _context = nullcontext("")

    def profile(self, action_name: str) -> AbstractContextManager[str]:  # type: ignore[override]
        return self._context


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's remarks about accelerators and tips, which are not about the run."""
    loggers = [logging.getLogger(name) for name in _LIGHTNING_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _LIGHTNING_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
