"""The training loop: what happens in one optimizer step."""

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from flowexp.couplings import Pairs
from flowexp.data import BatchStream, DataBatch, ImageArrays
from flowexp.models import FlowModel
from flowexp.networks.base import BeforeStep
from flowexp.runs import RunDirectory
from flowexp.seeding import derive_seed, generator
from flowexp.training.callbacks.checkpoints import Checkpoints
from flowexp.training.callbacks.records import Records
from flowexp.training.callbacks.stop_signals import StopSignals
from flowexp.training.callbacks.threads import Threads
from flowexp.training.ema import EMAWeights
from flowexp.training.inputs import BatchFeed, TrainingDraws, seed_global
from flowexp.training.parts import TrainingParts
from flowexp.training.precision import check_precision, with_precision

__all__ = ["FlowModule"]

_LARGE_GRADIENT = 1e5
# Adam's guard against CUDA-graph capture: its name in torch 2.12 and later, and before.
_CAPTURE_CHECKS = ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")


class FlowModule(LightningModule):
    """A flow model in training; :meth:`training_step` is the algorithm.

    Callbacks do the rest, in the order of :meth:`ordered_callbacks`. Optimization is manual, since
    micro-batches, learning rate and clipping belong to the step.

    Arguments are those of :func:`flowexp.training.fit.fit`.

    Attributes:
        step: Optimizer steps taken, those before a resumption included.
        seconds_before: Wall time of earlier sessions, as the first process knows it.
    """

    automatic_optimization = False
    objective: nn.Module | None
    optimizer: Optimizer
    draws: TrainingDraws

    def __init__(
        self,
        parts: TrainingParts,
        *,
        run: RunDirectory,
        seed: int,
        config: Mapping[str, Any],
        arrays: ImageArrays | None = None,
    ) -> None:
        super().__init__()
        self.parts = parts
        self.settings = parts.settings
        self.run = run
        self.seed = seed
        self.config = config
        self.arrays = arrays
        self.network: nn.Module = parts.model.network
        self.objective = parts.objective.learned  # a module of this one, to be trained
        self.model = with_precision(parts.model, parts.settings.precision)
        self.step = self.start_step = 0
        self.seconds_before = 0.0
        self.started = time.perf_counter()
        self._before_step = [module for module in self.modules() if isinstance(module, BeforeStep)]
        self.averages = EMAWeights(parts.emas)
        self.records = Records()
        self.checkpoints = Checkpoints()
        self.stop_signals = StopSignals(run)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Set counters and Lightning's notes, which change often, without torch's slow lookups."""
        if name in self.__dict__ and isinstance(value, int | str | None):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def training_step(self, batch: DataBatch, batch_idx: int) -> dict[str, Tensor]:
        """One optimizer step over this process's share of the batch; returns the mean loss.

        Every random draw is a function of seed, step and process.
        """
        step, seed, rank = self.step, self.seed, self.global_rank
        for module in self._before_step:
            module.before_step()
        seed_global(derive_seed(seed, "dropout", step, rank), self.device)
        pairs, t = self.draws(batch, step)  # data coupled with source draws, and their times

        factor = self.parts.lr_schedule.factor(self.images)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.optimizer.zero_grad(set_to_none=True)

        means: dict[str, Tensor] = {}
        shares = micro_batches(pairs, t, self.settings.micro_batch)
        for number, (part, times) in enumerate(shares):
            rng = generator(seed, "objective", step, rank, number, device=t.device)
            with nullcontext() if number == len(shares) - 1 else self._gradients_kept_local():
                result = self.parts.objective.loss(self.model, part, times, rng=rng)
                loss = result.per_sample.sum() / len(t)
                self.manual_backward(loss)
            share = len(times) / len(t)
            found = {"loss": loss.detach(), **{k: v * share for k, v in result.metrics.items()}}
            means = {k: means[k] + v for k, v in found.items()} if means else found
        means |= pairs.metrics

        self._lightning_optimizer().step()  # on_before_optimizer_step clips the gradient
        self.step += 1
        return means

    def gradient(self, batch: DataBatch, *, seed: int) -> list[Tensor]:
        """The gradient that a step has with the draws of another seed, by parameter of the network.

        It is that of this process's share of the batch; ``grad`` of the parameters is not touched,
        but the global generators are seeded.
        """
        step, rank = self.step, self.global_rank
        seed_global(derive_seed(seed, "dropout", step, rank), self.device)
        pairs, t = replace(self.draws, seed=seed)(batch, step)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        total = [torch.zeros_like(p) for p in parameters]
        shares = micro_batches(pairs, t, self.settings.micro_batch)
        for number, (part, times) in enumerate(shares):
            rng = generator(seed, "objective", step, rank, number, device=t.device)
            loss = self.parts.objective.loss(self.model, part, times, rng=rng).per_sample.sum()
            found = torch.autograd.grad(loss / len(t), parameters, allow_unused=True)
            total = [a if g is None else a + g for a, g in zip(total, found, strict=True)]
        return total

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Replace gradients that are not finite, and clip, where the settings say so."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.settings.nan_to_num:
            limit = _LARGE_GRADIENT
            for gradient in (p.grad for p in parameters if p.grad is not None):
                torch.nan_to_num(gradient, nan=0.0, posinf=limit, neginf=-limit, out=gradient)
        if self.settings.grad_clip is not None:
            clip_grad_norm_(parameters, self.settings.grad_clip)

    def configure_optimizers(self) -> Optimizer:
        """The optimizer over the network's parameters, and those an objective may have."""
        self.optimizer = self.parts.optimizer([p for p in self.parameters() if p.requires_grad])
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        skip_capture_check(self.optimizer, self.device)
        return self.optimizer

    def ordered_callbacks(self) -> list[Callback]:
        """Callbacks in order: threads, averages, records, chosen ones, stop; then checkpoints."""
        chosen = self.parts.callbacks.values()
        before, after = (Threads(), self.averages, self.records), (self.stop_signals,)
        return [*before, *chosen, *after, self.checkpoints]

    def on_fit_start(self) -> None:
        parts = self.parts
        check_precision(self.settings.precision, self.device)
        self.settings.share(self.trainer.world_size, group=parts.group)
        self.model.averages = {name: self._averaged(name) for name in parts.objective.averages}
        place = {"rank": self.global_rank, "world_size": self.trainer.world_size}
        self.draws = TrainingDraws.of(parts, seed=self.seed, **place)

    def _averaged(self, name: str) -> FlowModel:
        """The model with an average's weights, which go on moving."""
        average = copy.copy(self.parts.model)
        average.network = self.averages.network(name, self.network)
        return with_precision(average, self.settings.precision)

    def on_train_start(self) -> None:
        self.started = time.perf_counter()

    def train_dataloader(self) -> BatchFeed:
        """The batches from the current step on."""
        arrays = self.parts.dataset.train() if self.arrays is None else self.arrays
        stream = BatchStream(
            arrays,
            batch_size=self.settings.batch_size,
            seed=self.seed,
            order=self.parts.order,
            hflip=self.parts.mirrors(arrays),
            rank=self.global_rank,
            world_size=self.trainer.world_size,
        )
        ahead = self.device.type == "cuda"
        return BatchFeed(stream, start=self.step, stop=self.settings.total_steps, ahead=ahead)

    def transfer_batch_to_device(
        self, batch: DataBatch, device: torch.device, dataloader_idx: int
    ) -> DataBatch:
        """The batch on the device, copied while the device computes where memory is pinned."""
        return batch if device.type == "cpu" else batch.to(device, non_blocking=True)

    @property
    def images(self) -> int:
        """Images seen so far, over all processes."""
        return self.step * self.settings.batch_size

    @property
    def kimg(self) -> float:
        """Thousands of images seen so far."""
        return self.images / 1000.0

    @property
    def seconds(self) -> float:
        """Wall time of the training, over all sessions."""
        return self.seconds_before + time.perf_counter() - self.started

    @property
    def images_per_second(self) -> float:
        """Mean speed since this process began to train."""
        seconds = time.perf_counter() - self.started
        return (self.step - self.start_step) * self.settings.batch_size / max(seconds, 1e-9)

    @contextmanager
    def evaluating(self, ema: str | None) -> Iterator[None]:
        """The network in evaluation mode with an average's weights, or with its own for None."""
        self.network.eval()
        try:
            with nullcontext() if ema is None else self.averages.applied(ema):
                yield
        finally:
            self.network.train()

    def _lightning_optimizer(self) -> LightningOptimizer:
        """The optimizer as Lightning counts its steps."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def _gradients_kept_local(self) -> AbstractContextManager[None]:
        """Processes exchange gradients in the last micro-batch only."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ParallelStrategy):
            return strategy.block_backward_sync()
        return nullcontext()


def skip_capture_check(optimizer: Optimizer, device: torch.device) -> None:
    """Spare a CPU training Adam's question whether a CUDA graph is being captured.

    On a build with CUDA, but without a device, the question costs 0.3 ms a step, because the driver
    is looked for each time; on the CPU nothing can be captured.
    """
    for name in _CAPTURE_CHECKS:
        if device.type == "cpu" and hasattr(optimizer, name):
            setattr(optimizer, name, lambda: None)


def micro_batches(pairs: Pairs, t: Tensor, size: int | None) -> list[tuple[Pairs, Tensor]]:
    """A coupled batch in parts of at most ``size`` samples; None = the whole."""
    if size is None or size >= len(t):
        return [(pairs, t)]
    shares = (slice(start, start + size) for start in range(0, len(t), size))
    return [(pairs.rows(rows), t[rows]) for rows in shares]
