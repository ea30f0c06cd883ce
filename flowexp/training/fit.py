"""Training from typed parts to a checkpoint."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities.exceptions import (  # type: ignore[attr-defined]
    MisconfigurationException,
)
from torch import nn

from flowexp.data import ImageArrays
from flowexp.errors import UsageError
from flowexp.runs import RunDirectory
from flowexp.training.module import FlowModule
from flowexp.training.parts import TrainerSettings, TrainingParts
from flowexp.training.precision import LossScaling, matmul_precision
from flowexp.tree import plain

__all__ = ["FitResult", "fit", "require_devices"]

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


@dataclass(frozen=True)
class FitResult:
    """How a training ended.

    ``step`` and ``kimg`` (thousands of images) count the whole training; ``seconds`` and the mean
    speed, over all devices, are of this process's part; the loss is the mean of the last row.
    """

    step: int
    kimg: float
    seconds: float
    images_per_second: float
    checkpoint: Path
    final_loss: float


def fit(
    parts: TrainingParts,
    *,
    run: RunDirectory,
    seed: int,
    config: Mapping[str, Any],
    arrays: ImageArrays | None = None,
) -> FitResult:
    """Train a model, or continue its training from the run's latest checkpoint.

    The result is a function of configuration and seed: a training that was killed any number of
    times ends with the same weights, averages, optimizer state and losses, bit for bit. That needs
    one thing of the caller: the network must have been built under
    ``torch.manual_seed(derive_seed(seed, "init"))``.

    The resolved configuration, in plain builtins, is stored in every checkpoint. ``arrays`` replace
    the dataset's training split, for example by noise-data pairs; the dataset still says what a
    sample is.

    Raises:
        UsageError: Missing data, or a checkpoint that cannot be read.
        NonFiniteLossError: The loss became nan or infinite.
        TrainingInterrupted: SIGINT or SIGTERM; a checkpoint was written.
    """
    module = FlowModule(parts, run=run, seed=seed, config=plain(config), arrays=arrays)
    _prepare_network(module.network, parts.settings)
    if not module.checkpoints.finished(module):
        with _quiet_lightning(), matmul_precision(parts.settings.precision):
            _trainer(module).fit(module)
    checkpoint = module.run.latest_checkpoint()
    if checkpoint is None:
        raise RuntimeError(f"{run.path} has no checkpoint after training")
    return FitResult(
        step=module.step,
        kimg=module.kimg,
        seconds=module.seconds,
        images_per_second=module.images_per_second,
        checkpoint=checkpoint,
        final_loss=float(module.records.row.get("train/loss", float("nan"))),
    )


def require_devices(settings: TrainerSettings) -> None:
    """Refuse an accelerator, or a number of devices, that this computer does not have.

    Raises:
        UsageError: With Lightning's reason.
    """
    if settings.accelerator in ("auto", "cpu") and settings.devices in (1, "auto"):
        return
    devices = settings.devices
    try:
        with _quiet_lightning():
            Trainer(
                accelerator=settings.accelerator,
                devices=devices if isinstance(devices, int | str) else list(devices),
                num_nodes=settings.num_nodes,
                strategy=settings.strategy,
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


def _trainer(module: FlowModule) -> Trainer:
    """Lightning's trainer: one epoch, which is the rest of the run."""
    settings, callbacks = module.settings, module.ordered_callbacks()
    devices = settings.devices
    return Trainer(
        accelerator=settings.accelerator,
        devices=devices if isinstance(devices, int | str) else list(devices),
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        plugins=LossScaling() if settings.precision == "16-mixed" else None,
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


class _NoProfiler(PassThroughProfiler):
    """Measures nothing, without the cost of the contexts that Lightning enters 50 times a step."""

    _context = nullcontext("")

    def profile(self, action_name: str) -> AbstractContextManager[str]:  # type: ignore[override]
        return self._context


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
            for message in _LIGHTNING_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
