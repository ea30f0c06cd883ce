"""Training from typed parts to a checkpoint."""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from flowexp.augmentations import Augmentation
from flowexp.couplings import Coupling
from flowexp.data import Dataset, ImageArrays
from flowexp.guidance import Guidance
from flowexp.models import FlowModel
from flowexp.objectives import Objective
from flowexp.runs import RunDirectory
from flowexp.samplers import Sampler
from flowexp.tasks import Task
from flowexp.timesteps import TimestepDistribution
from flowexp.training.callbacks.base import Callback
from flowexp.training.ema import EMA
from flowexp.training.loggers.base import Logger
from flowexp.training.lr_schedules import LRSchedule
from flowexp.training.precision import matmul_precision
from flowexp.training.session import Parts, Session
from flowexp.training.settings import TrainerSettings

__all__ = ["FitResult", "fit"]


@dataclass(frozen=True)
class FitResult:
    """How a training ended.

    Attributes:
        step: Optimizer steps taken in all.
        kimg: Thousands of images seen in all.
        seconds: Wall time of this process's part.
        images_per_second: Mean speed of this process's part, over all devices.
        checkpoint: The last checkpoint.
        final_loss: Mean training loss of the last row.
    """

    step: int
    kimg: float
    seconds: float
    images_per_second: float
    checkpoint: Path
    final_loss: float


def fit(
    *,
    model: FlowModel,
    dataset: Dataset,
    coupling: Coupling,
    timestep: TimestepDistribution,
    objective: Objective,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    lr_schedule: LRSchedule,
    emas: Mapping[str, EMA],
    settings: TrainerSettings,
    run: RunDirectory,
    seed: int,
    config: Mapping[str, Any],
    augmentation: Augmentation | None = None,
    callbacks: Mapping[str, Callback | None] | None = None,
    loggers: Mapping[str, Logger | None] | None = None,
    sampler: Sampler | None = None,
    guidance: Guidance | None = None,
    task: Task | None = None,
    arrays: ImageArrays | None = None,
) -> FitResult:
    """Train a model, or continue its training from the run's latest checkpoint.

    The result is a function of configuration and seed: a training that was killed any number of
    times ends with the same weights, averages, optimizer state and losses, bit for bit. That needs
    one thing of the caller: the network must have been built under
    ``torch.manual_seed(derive_seed(seed, "init"))``.

    Args:
        model: Path, network and parameterization; the network is trained in place.
        dataset: The data.
        coupling: Which e goes with which x.
        timestep: Law of t.
        objective: The loss.
        optimizer: Makes the optimizer from the parameters.
        lr_schedule: Factor of the optimizer's learning rate.
        emas: Name -> law of the averages of the weights.
        settings: Length, batch, numerics and devices.
        run: Where checkpoints and records go.
        seed: The run's seed.
        config: The resolved configuration in plain builtins; stored in every checkpoint.
        augmentation: Change of the pictures that the network is told of; None = none.
        callbacks: Named hooks; None entries are left out.
        loggers: Named destinations of the records; None entries are left out.
        sampler: For callbacks that sample.
        guidance: Wraps the model for callbacks that sample.
        task: What is asked of the model when it samples.
        arrays: What to train on instead of the dataset's training split, for example noise-data
            pairs; the dataset still says what a sample is.

    Raises:
        UsageError: Missing data, or a checkpoint that cannot be read.
        NonFiniteLossError: The loss became nan or infinite.
        TrainingInterrupted: SIGINT or SIGTERM; a checkpoint was written.
    """
    parts = Parts(
        model=model,
        dataset=dataset,
        coupling=coupling,
        timestep=timestep,
        objective=objective,
        optimizer=optimizer,
        lr_schedule=lr_schedule,
        emas={name: law for name, law in emas.items() if law is not None},
        augmentation=augmentation,
        sampler=sampler,
        guidance=guidance,
        task=task,
        callbacks={name: item for name, item in (callbacks or {}).items() if item is not None},
        loggers={name: item for name, item in (loggers or {}).items() if item is not None},
    )
    session = Session(parts, settings=settings, run=run, seed=seed, config=config)
    _prepare_network(model.network, settings)
    if session.is_complete():
        return _result(session)
    failed = True
    try:
        with matmul_precision(settings.precision):
            _train(session, arrays)
        failed = False
    finally:
        session.close(failed=failed)
    return _result(session)


def _train(session: Session, arrays: ImageArrays | None) -> None:
    """Run Lightning's loop over the remaining steps, with all that it does beside switched off."""
    from pytorch_lightning import Trainer

    from flowexp.training.module import FlowModule

    settings = session.settings
    arrays = session.parts.dataset.train() if arrays is None else arrays
    module = FlowModule(session, arrays=arrays)
    with _quiet_lightning():
        trainer = Trainer(
            accelerator=settings.accelerator,
            devices=_devices(settings),
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            max_epochs=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=session.run.path,
        )
        trainer.fit(module)


def _devices(settings: TrainerSettings) -> int | str | list[int]:
    devices = settings.devices
    return devices if isinstance(devices, int | str) else list(devices)


def _prepare_network(network: nn.Module, settings: TrainerSettings) -> None:
    """Memory layout and compilation, both in place so that parameter names stay."""
    wanted = settings.channels_last
    if wanted is None:
        wanted = any(isinstance(layer, nn.Conv2d) for layer in network.modules())
    if wanted:
        network.to(memory_format=torch.channels_last)
    if settings.compile:
        network.compile()
    network.train()


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's remarks about accelerators and tips, which are not about the run."""
    loggers = [logging.getLogger(name) for name in _LIGHTNING_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning's own use of torch, which is not about the run.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


_LIGHTNING_LOGGERS = (
    "pytorch_lightning.utilities.rank_zero",
    "pytorch_lightning.accelerators.cuda",
)


def _result(session: Session) -> FitResult:
    checkpoint = session.run.latest_checkpoint()
    if checkpoint is None:
        raise RuntimeError(f"{session.run.path} has no checkpoint after training")
    return FitResult(
        step=session.step,
        kimg=session.kimg,
        seconds=session.seconds,
        images_per_second=session.images_per_second,
        checkpoint=checkpoint,
        final_loss=float(session.row.get("train/loss", float("nan"))),
    )
