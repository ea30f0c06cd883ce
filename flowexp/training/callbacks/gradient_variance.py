"""Variance and cost of the gradient of an objective."""

import time
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from flowexp.data import DataBatch
from flowexp.seeding import derive_seed

if TYPE_CHECKING:
    from flowexp.training.module import FlowModule

__all__ = ["GradientVariance"]


class GradientVariance(Callback):
    """Variance of the gradient over noise and times, at fixed weights and images, and its cost.

    With K gradients g_k of the loss of one batch, which differ in all random draws (source, times,
    what an objective draws, dropout), their mean g and ``V = sum_k |g_k - g|^2 / (K - 1)``, the
    trace of their covariance, the next row of the metrics contains

    - ``gradient/variance``: V;
    - ``gradient/squared_mean``: ``|g|^2 - V/K``, an unbiased estimate of the squared norm of the
      expected gradient, which may be negative if K is small;
    - ``gradient/relative_variance``: V divided by it, if it is positive;
    - ``time/gradient_seconds``: median wall time of one gradient, forward and backward.

    V refers to batches of ``trainer.batch_size``, to which it is inversely proportional. The first
    process measures, on its share of the batch. The training itself is not changed.

    Compare objectives on the same weights and images, such as before the first step of trainings
    from one run::

        flowexp train from=RUN objective=meanflow callbacks=gradient_variance
        flowexp train from=RUN objective=split_mean_flow callbacks=gradient_variance

    The computing time to reach a given relative error of the gradient is proportional to
    ``relative_variance`` times ``gradient_seconds``.

    Args:
        every_kimg: Thousands of images between measurements; the first is before the first step.
        draws: K, >= 2; a measurement takes about as long as K steps.
        seed: Seed of the draws.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(self, *, every_kimg: float = 10.0, draws: int = 16, seed: int = 0) -> None:
        if not 0 < every_kimg < float("inf"):
            raise ValueError(f"every_kimg is {every_kimg}; allowed: finite numbers > 0")
        if draws < 2:
            raise ValueError(f"draws is {draws}; allowed: integers >= 2")
        self.every_kimg = every_kimg
        self.draws = draws
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: "FlowModule", batch: DataBatch, batch_idx: int
    ) -> None:
        """Measure in the first step at or after each multiple of ``every_kimg``."""
        every, images = self.every_kimg * 1000.0, pl_module.images
        before = images - pl_module.settings.batch_size
        if trainer.is_global_zero and images // every > before // every:
            pl_module.records.note(self._measure(pl_module, batch))

    def _measure(self, module: "FlowModule", batch: DataBatch) -> dict[str, float]:
        buffers = [buffer.clone() for buffer in module.network.buffers()]
        devices = [module.device] if module.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            found = self._over_draws(module, batch)
        for buffer, kept in zip(module.network.buffers(), buffers, strict=True):
            buffer.copy_(kept)
        return found

    def _over_draws(self, module: "FlowModule", batch: DataBatch) -> dict[str, float]:
        total: list[Tensor] = []
        squares, seconds = 0.0, []
        for number in range(self.draws):
            started = _clock(module.device)
            seed = derive_seed(self.seed, "gradient variance", module.step, number)
            gradient = module.gradient(batch, seed=seed)
            seconds.append(_clock(module.device) - started)
            squares += _squared_norm(gradient)
            total = [a + b for a, b in zip(total, gradient, strict=True)] if total else gradient
        mean = _squared_norm(total) / self.draws**2
        variance = (squares - self.draws * mean) / (self.draws - 1)
        squared_mean = mean - variance / self.draws
        found = {"gradient/variance": variance, "gradient/squared_mean": squared_mean}
        if squared_mean > 0.0:
            found["gradient/relative_variance"] = variance / squared_mean
        return {**found, "time/gradient_seconds": sorted(seconds)[len(seconds) // 2]}


def _squared_norm(tensors: list[Tensor]) -> float:
    """In float64, since variances are differences of such numbers."""
    return sum(float(tensor.double().square().sum()) for tensor in tensors)


def _clock(device: torch.device) -> float:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)
    return time.perf_counter()
