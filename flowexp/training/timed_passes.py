"""Side-effect-free passes through a training step, for timing."""

import copy
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flowexp.couplings import Pairs
from flowexp.data import DataBatch
from flowexp.models import FlowModel
from flowexp.objectives import Objective
from flowexp.seeding import generator
from flowexp.training.inputs import TrainingDraws

if TYPE_CHECKING:
    from flowexp.training.parts import TrainingParts

__all__ = ["fitting", "passes", "seconds_of", "steps_on"]

_FIRST_SAMPLES = 8


def steps_on(
    batch: DataBatch, parts: "TrainingParts", *, seed: int = 0, step: int = 0
) -> Callable[[int], None]:
    """A function that takes a training step on the first ``n`` samples of a batch.

    Draws are those of the step number ``step``, made and coupled anew in every call; averages have
    the weights of the network. A coupling that needs all the data must have been prepared.
    """
    model, draws = parts.model, TrainingDraws.of(parts, seed=seed)
    model.averages = dict.fromkeys(parts.objective.averages, model)
    return _repeated(
        model,
        parts.objective,
        lambda size: draws(batch.first(size), step),
        seed=seed,
        step=step,
        optimizer=parts.optimizer,
    )


def passes(
    model: FlowModel,
    objective: Objective,
    pairs: Pairs,
    t: Tensor,
    *,
    seed: int,
    step: int,
) -> Callable[[int], None]:
    """A function that makes a forward and backward pass over the first ``n`` samples of a batch.

    Network and objective are copied, so that their gradients and counters stay unchanged.
    """
    from flowexp.training.module import micro_batches

    def first(size: int) -> tuple[Pairs, Tensor]:
        return micro_batches(pairs, t, size)[0]

    return _repeated(model, objective, first, seed=seed, step=step)


def _repeated(
    model: FlowModel,
    objective: Objective,
    batch_of: Callable[[int], tuple[Pairs, Tensor]],
    *,
    seed: int,
    step: int,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
) -> Callable[[int], None]:
    """Passes of copies of network and objective; with an ``optimizer`` the copy is trained."""
    model, objective = copy.deepcopy((model, objective))
    stepping = None if optimizer is None else optimizer(model.network.parameters())

    def work(size: int) -> None:
        part, times = batch_of(size)
        rng = generator(seed, "objective", step, 0, 0, device=times.device)
        torch.autograd.backward(objective.loss(model, part, times, rng=rng).per_sample.sum())
        if stepping is not None:
            stepping.step()
            stepping.zero_grad(set_to_none=True)

    return work


def fitting(work: Callable[[int], None], *, most: int, seconds: float) -> tuple[int, int]:
    """A small number of samples, and the number, up to ``most``, that takes about ``seconds``."""
    first = size = min(_FIRST_SAMPLES, most)
    work(first)
    while size < most and (spent := seconds_of(work, size)) < seconds / 2:
        size = min(most, int(size * seconds / spent))
    return first, size


def seconds_of(work: Callable[[int], None], size: int) -> float:
    """Wall time of a call in seconds, above zero; waits for an accelerator."""
    started = time.perf_counter()
    work(size)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return max(time.perf_counter() - started, 1e-6)
