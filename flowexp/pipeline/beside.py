"""Grids that show what a task gives beside each sample."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.data import as_data
from flowexp.tasks import Task

__all__ = ["WithGiven", "with_given"]


@dataclass(frozen=True, eq=False)
class WithGiven:
    """Images (N, C, H, W) for a grid of ``columns``, in which no group is split."""

    images: Tensor
    columns: int


def with_given(task: Task, seeds: Sequence[int], x: Tensor) -> WithGiven | None:
    """Each sample of ``x``, (B, C, H, W), between what it was given and its target.

    Row j of x is the sample of ``seeds[j]``. None if the task shows nothing beside it. Grey images
    fit samples in colour; one that does not fit is left out.
    """
    found = [*task.beside(task.conditions(seeds)), x.detach().cpu()]
    target = task.targets(seeds)
    found += [] if target is None else [as_data(target)]
    grey = (len(x), 1, *x.shape[2:])
    fitting = [image for image in found if tuple(image.shape) in (tuple(x.shape), grey)]
    groups = [image.cpu().float().expand_as(x) for image in fitting]
    if len(groups) == 1:
        return None
    across = math.ceil(math.sqrt(len(x) / len(groups)))
    return WithGiven(torch.stack(groups, dim=1).flatten(0, 1), across * len(groups))
