"""Passes through a step of a training that leave no trace, to find out how long they take."""

import copy
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flowexp.couplings import Pairs
from flowexp.models import FlowModel
from flowexp.objectives import Objective
from flowexp.seeding import generator

__all__ = ["fitting", "passes", "seconds_of"]

_FIRST_SAMPLES = 8


def passes(
    model: FlowModel,
    objective: Objective,
    pairs: Pairs,
    t: Tensor,
    *,
    seed: int,
    step: int,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
) -> Callable[[int], None]:
    """Forward and backward passes of the first samples of a batch; their number is the argument.

    Network and objective are copies, so that neither gradients nor counters of theirs change. With
    an ``optimizer`` the copy is trained.
    """
    from flowexp.training.module import micro_batches

    model, objective = copy.deepcopy((model, objective))
    stepping = None if optimizer is None else optimizer(model.network.parameters())

    def work(size: int) -> None:
        part, times = micro_batches(pairs, t, size)[0]
        rng = generator(seed, "objective", step, 0, 0, device=t.device)
        torch.autograd.backward(objective.loss(model, part, times, rng=rng).per_sample.sum())
        if stepping is not None:
            stepping.step()
            stepping.zero_grad(set_to_none=True)

    return work


def fitting(work: Callable[[int], None], *, most: int, seconds: float) -> tuple[int, int]:
    """A few samples, and as many up to ``most`` as are worked on in about ``seconds``."""
    first = size = min(_FIRST_SAMPLES, most)
    work(first)
    while size < most and (spent := seconds_of(work, size)) < seconds / 2:
        size = min(most, int(size * seconds / spent))
    return first, size


def seconds_of(work: Callable[[int], None], size: int) -> float:
    """Wall time of some work, above zero; waits for an accelerator."""
    started = time.perf_counter()
    work(size)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return max(time.perf_counter() - started, 1e-6)
