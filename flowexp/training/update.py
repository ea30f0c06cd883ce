"""The arithmetic of one optimizer step, without any framework around it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives import Objective
from flowexp.seeding import generator
from flowexp.training.ema import EMAWeights
from flowexp.training.lr_schedules import LRSchedule

__all__ = ["Update"]

_LARGE_GRADIENT = 1e5


class Update:
    """One step of an optimizer: gradient of the mean loss, clipping, learning rate, averages.

    Args:
        model: What is trained.
        objective: The loss.
        optimizer: Moves the parameters.
        lr_schedule: Factor of the optimizer's own learning rates.
        averages: Averages of the weights.
        seed: The run's seed.
        rank: This process.
        micro_batch: Samples per forward pass, or None for all.
        grad_clip: Largest gradient norm, or None.
        nan_to_num: Whether gradients that are not finite are replaced.
        scaler: Loss scaler for float16, or None.
        backward: Computes gradients; a framework may put its own in.
        unsynchronized: Context in which gradients are not exchanged between processes.
    """

    def __init__(
        self,
        model: Model,
        *,
        objective: Objective,
        optimizer: Optimizer,
        lr_schedule: LRSchedule,
        averages: EMAWeights,
        seed: int,
        rank: int = 0,
        micro_batch: int | None = None,
        grad_clip: float | None = None,
        nan_to_num: bool = False,
        scaler: torch.amp.GradScaler | None = None,
        backward: Callable[[Tensor], None] = torch.Tensor.backward,
        unsynchronized: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.averages = averages
        self.seed = seed
        self.rank = rank
        self.micro_batch = micro_batch
        self.grad_clip = grad_clip
        self.nan_to_num = nan_to_num
        self.scaler = scaler
        self.backward = backward
        self.unsynchronized = unsynchronized
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    @property
    def learning_rate(self) -> float:
        """The rate of the latest step (of the first parameter group)."""
        return float(self.optimizer.param_groups[0]["lr"])

    def __call__(
        self, pairs: Pairs, t: Tensor, *, step: int, images_seen: int, batch_size: int
    ) -> dict[str, Tensor]:
        """Take one step.

        Args:
            pairs: This process's share of the coupled batch.
            t: Its times, (B,), float64.
            step: Number of steps taken before.
            images_seen: Images shown before, over all processes.
            batch_size: Images shown in this step, over all processes.

        Returns:
            The mean loss under ``loss`` and the objective's metrics, detached scalars.
        """
        factor = self.lr_schedule.factor(images_seen)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        scalars = self._gradient(pairs, t, step)
        self._apply()
        self.averages.update(images_seen_before=images_seen, batch_size=batch_size)
        return scalars

    def _gradient(self, pairs: Pairs, t: Tensor, step: int) -> dict[str, Tensor]:
        """Accumulate the gradient of the mean loss over micro-batches; return the means."""
        total: dict[str, Tensor] = {}
        size = len(t)
        micro = self.micro_batch or size
        for number, start in enumerate(range(0, size, micro)):
            rows = slice(start, start + micro)
            part, times = (pairs, t) if micro >= size else (_rows(pairs, rows), t[rows])
            rng = generator(self.seed, "objective", step, self.rank, number, device=t.device)
            with nullcontext() if rows.stop >= size else self.unsynchronized():
                result = self.objective.loss(self.model, part, times, rng=rng)
                loss = result.per_sample.sum() / size
                self.backward(loss if self.scaler is None else self.scaler.scale(loss))
            share = len(times) / size
            found = {"loss": loss.detach(), **{k: v * share for k, v in result.metrics.items()}}
            total = {k: total[k] + v for k, v in found.items()} if total else found
        return total

    def _apply(self) -> None:
        """Replace non-finite values, clip and apply the gradient."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.nan_to_num:
            for gradient in self._gradients():
                torch.nan_to_num(
                    gradient, nan=0.0, posinf=_LARGE_GRADIENT, neginf=-_LARGE_GRADIENT, out=gradient
                )
        if self.grad_clip is not None:
            clip_grad_norm_(self._parameters, self.grad_clip)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def _gradients(self) -> Iterator[Tensor]:
        return (p.grad for p in self._parameters if p.grad is not None)


def _rows(pairs: Pairs, rows: slice) -> Pairs:
    """Some rows of a coupled batch."""
    return Pairs(
        pairs.x[rows],
        pairs.e[rows],
        {k: None if v is None else v[rows] for k, v in pairs.conditions.items()},
        None if pairs.weight is None else pairs.weight[rows],
    )
