"""Passes through a step of a training that leave no trace, to find out how long they take."""

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor

from flowexp.couplings import Pairs
from flowexp.models import FlowModel
from flowexp.objectives import Objective
from flowexp.seeding import generator

__all__ = ["fitting", "passes", "seconds_of"]

_FIRST_SAMPLES = 8


def passes(
    model: FlowModel, objective: Objective, pairs: Pairs, t: Tensor, *, seed: int, step: int
) -> Callable[[int], None]:
    """Forward and backward passes of the first samples of a batch; their number is the argument.

    Network and objective are copies, so that neither gradients nor counters of theirs change.
    """
    from flowexp.training.module import micro_batches

    model, objective = copy.deepcopy((model, objective))

    def work(size: int) -> None:
        part, times = micro_batches(pairs, t, size)[0]
        rng = generator(seed, "objective", step, 0, 0, device=t.device)
        torch.autograd.backward(objective.loss(model, part, times, rng=rng).per_sample.sum())

    return work


def fitting(work: Callable[[int], None], *, most: int, seconds: float) -> tuple[int, int]:
    """A few samples, and as many up to ``most`` as are worked on in about ``seconds``."""
    first = min(_FIRST_SAMPLES, most)
    work(first)
    return first, max(first, min(most, int(first * seconds / seconds_of(work, first))))


def seconds_of(work: Callable[[int], None], size: int) -> float:
    """Wall time of some work, above zero."""
    started = time.perf_counter()
    work(size)
    return max(time.perf_counter() - started, 1e-6)
