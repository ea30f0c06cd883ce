"""Training from typed parts to a checkpoint."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowexp.data import ImageArrays
from flowexp.errors import NotWrittenError, StoppedError
from flowexp.processes import Place
from flowexp.runs import RunDirectory
from flowexp.runs.assemble import resolve_device
from flowexp.runs.metrics_file import training_seconds
from flowexp.threads import restored
from flowexp.training.coupled import prepare
from flowexp.training.module import FlowModule
from flowexp.training.parts import TrainerSettings, TrainingParts
from flowexp.training.precision import matmul_precision
from flowexp.training.trainer import RunTrainer, quiet_lightning
from flowexp.tree import plain

__all__ = ["FitResult", "fit", "prepare_coupling", "prepare_network"]


@dataclass(frozen=True)
class FitResult:
    """How a training ended.

    ``step``, ``kimg`` (thousands of images), ``seconds`` and the mean speed over all devices are of
    the whole training, over all its sessions; the loss is the mean of the last row.
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
    place: Place | None = None,
) -> FitResult:
    """Train a model, or continue its training from the run's latest checkpoint.

    The result is a function of configuration and seed: a training that was killed any number of
    times ends with the same weights, averages, optimizer state and losses, bit for bit. That needs
    one thing of the caller: the network must have been built under
    ``torch.manual_seed(derive_seed(seed, "init"))``.

    The resolved configuration, in plain builtins, is stored in every checkpoint. ``arrays`` replace
    the dataset's training split, for example by noise-data pairs; the dataset still says what a
    sample is. ``place`` is this process's among those that train together; None = what the
    environment says.

    Raises:
        UsageError: Missing data, or a checkpoint that cannot be read.
        NonFiniteLossError: The loss became nan or infinite.
        NonFiniteWeightsError: Weights, averages or the optimizer's state did; they are not saved.
        TrainingInterrupted: A signal such as SIGTERM; a checkpoint was written.
        StoppedError: The disk is full.
    """
    prepare_coupling(parts, parts.dataset.train() if arrays is None else arrays)
    module = FlowModule(parts, run=run, seed=seed, config=plain(config), arrays=arrays)
    prepare_network(module.network, parts.settings)
    if not module.checkpoints.finished(module):
        with (
            quiet_lightning(),
            matmul_precision(parts.settings.precision),
            module.stop_signals,
            restored(),
            _disk_full_explained(module),
        ):
            RunTrainer(module, place=place).fit(module)
    checkpoint = module.run.latest_checkpoint()
    if checkpoint is None:
        raise RuntimeError(f"{run.path} has no checkpoint after training")
    seconds = training_seconds([module.records.row])
    return FitResult(
        step=module.step,
        kimg=module.kimg,
        seconds=seconds,
        images_per_second=module.images / max(seconds, 1e-9),
        checkpoint=checkpoint,
        final_loss=float(module.records.row.get("train/loss", float("nan"))),
    )


def prepare_coupling(parts: TrainingParts, arrays: ImageArrays) -> None:
    """Do what the coupling has to do once for these data, on an accelerator if one is used."""
    prepare(
        parts.coupling,
        arrays,
        parts.model.path.source,
        mirrored=parts.dataset.hflip,
        device=device_before(parts.settings),
    )


def device_before(settings: TrainerSettings) -> torch.device:
    """Where long computations on the data run before a training: on an accelerator if it may."""
    return torch.device("cpu" if settings.accelerator == "cpu" else resolve_device("auto"))


def prepare_network(network: nn.Module, settings: TrainerSettings) -> None:
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
def _disk_full_explained(module: FlowModule) -> Iterator[None]:
    """A full disk ends the training with a sentence; what was written before stays."""
    try:
        yield
    except NotWrittenError as error:
        checkpoint = module.run.latest_checkpoint()
        there = f"{checkpoint} is intact" if checkpoint else "there was no checkpoint before it"
        then = "it continues" if checkpoint else "it starts anew"
        raise StoppedError(
            f"{error}. The training stopped at step {module.step}; {there}. Free some space; then "
            f"{then} with {module.run.continued_by}"
        ) from error
