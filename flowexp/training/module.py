"""The thin bridge between Lightning and a training session."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import ParallelStrategy
from torch import nn
from torch.optim import Optimizer

from flowexp.data import Batch, BatchStream, ImageArrays
from flowexp.errors import UsageError
from flowexp.networks.base import label_dim_of
from flowexp.runs import RunDirectory
from flowexp.runs.resume_rules import config_digest
from flowexp.seeding import derive_seed
from flowexp.training.capture import skip_capture_check
from flowexp.training.draws import Draws, seed_global
from flowexp.training.ema import EMAWeights
from flowexp.training.feed import BatchFeed
from flowexp.training.precision import gradient_scaler, with_precision
from flowexp.training.session import Session
from flowexp.training.update import Update

__all__ = ["FlowModule"]


class FlowModule(LightningModule):
    """Places the network on its devices and takes one optimizer step per batch.

    Optimization is manual: Lightning's automatic one costs more than the arithmetic of a small
    network's step. Nothing is logged through Lightning and no hyperparameters are kept, so that
    checkpoints hold plain tensors only.

    Args:
        session: The training.
        arrays: Its data.
    """

    automatic_optimization = False

    def __init__(self, session: Session, *, arrays: ImageArrays) -> None:
        super().__init__()
        self.session = session
        self.arrays = arrays
        self.network = session.network
        if isinstance(session.parts.objective, nn.Module):
            self.objective = session.parts.objective

    def configure_optimizers(self) -> Optimizer:
        """The optimizer over the network's parameters, and those an objective may have."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        self.session.optimizer = self.session.parts.optimizer(trainable)
        skip_capture_check(self.session.optimizer, self.device)
        return self.session.optimizer

    def on_fit_start(self) -> None:
        """Put the parts together on the device and continue from the checkpoint, if any."""
        session = self.session
        session.place(self.device, rank=self.global_rank, world_size=self.trainer.world_size)
        parts, settings = session.parts, session.settings
        session.averages = EMAWeights(self.network, laws=parts.emas)
        self.draws = Draws(
            parts.model.path,
            coupling=parts.coupling,
            timestep=parts.timestep,
            augmentation=parts.augmentation,
            conditional=label_dim_of(self.network) > 0,
            task=parts.task,
            seed=session.seed,
            rank=session.rank,
            world_size=session.world_size,
        )
        parallel = session.world_size > 1
        session.update = Update(
            with_precision(parts.model, settings.precision),
            objective=parts.objective,
            optimizer=session.optimizer,
            lr_schedule=parts.lr_schedule,
            averages=session.averages,
            seed=session.seed,
            rank=session.rank,
            micro_batch=settings.micro_batch,
            grad_clip=settings.grad_clip,
            nan_to_num=settings.nan_to_num,
            scaler=gradient_scaler(settings.precision, self.device),
            backward=self.manual_backward if parallel else torch.Tensor.backward,
            unsynchronized=self._unsynchronized if parallel else nullcontext,
        )
        session.restore(self._agree_on_start())

    def _agree_on_start(self) -> Path | None:
        """The first process's checkpoint, after a check that all processes do the same.

        Raises:
            UsageError: This process was started with another configuration than the first.
        """
        session = self.session
        own = config_digest(session.config), session.run.path, session.run.latest_checkpoint()
        digest, path, checkpoint = self.trainer.strategy.broadcast(own)
        if digest != own[0]:
            raise UsageError(
                f"process {session.rank} was started with another configuration than process 0.",
                key="trainer.strategy",
                remedy="Start all processes with one torchrun or srun command.",
            )
        session.run = RunDirectory(path)
        return checkpoint

    def on_train_start(self) -> None:
        """Open the records; signals are taken over after Lightning has set its own handlers."""
        self.session.begin()
        self.session.interruption.install()

    def on_train_end(self) -> None:
        """Write the last checkpoint; every process waits until it is there."""
        self.session.finish()
        self.trainer.strategy.barrier()

    def train_dataloader(self) -> BatchFeed:
        """The batches from the current step on."""
        session = self.session
        stream = BatchStream(
            self.arrays,
            batch_size=session.settings.batch_size,
            seed=session.seed,
            hflip=session.parts.dataset.hflip,
            rank=session.rank,
            world_size=session.world_size,
        )
        ahead = self.device.type == "cuda"
        return BatchFeed(stream, start=session.step, stop=session.total_steps, ahead=ahead)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """The batch on the device, copied while the device computes where memory is pinned."""
        return batch if device.type == "cpu" else batch.to(device, non_blocking=True)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One optimizer step over this process's share of the global batch."""
        session = self.session
        step = session.step
        seed_global(derive_seed(session.seed, "dropout", step, session.rank), self.device)
        pairs, t = self.draws(batch, step)
        scalars = session.update(
            pairs,
            t,
            step=step,
            images_seen=session.images,
            batch_size=session.settings.batch_size,
        )
        session.after_step(scalars)

    def _unsynchronized(self) -> AbstractContextManager[None]:
        """Processes keep their gradients to themselves until the last micro-batch."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ParallelStrategy):
            return strategy.block_backward_sync()
        return nullcontext()
