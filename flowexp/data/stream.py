"""The batches of a training, as a function of (seed, step) only.

Item j of a step stands at position step * batch_size + j of an endless stream, whose order is an
:class:`~flowexp.data.orders.Order`. Whether it is mirrored is drawn from (seed, "flip", step) for
the whole global batch; rank r of R gets the r-th of R equal slices of it. Starting at step k
therefore continues exactly as an uninterrupted run, and the union over the ranks does not depend on
their number.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowexp.data.base import ImageArrays
from flowexp.data.orders import Order, RandomEpochs
from flowexp.seeding import generator

__all__ = ["DataBatch", "BatchStream", "gather_batch"]


@dataclass(frozen=True, eq=False)
class DataBatch:
    """Items of a data set.

    Attributes:
        images: (B, C, H, W), uint8, for ``as_data``; or data, float32.
        labels: Classes (B,), int64; or label vectors (B, num_classes), float32; or None.
        index: Positions in the data set, (B,), int64.
        partner: The source draws of the items, (B, ...), float32, or None.
        std: Of items that are drawn, with ``images`` as means: (B, C, H, W), float32; or None.
        mirrored: Which latents are those of a mirrored image, (B,), bool; or None.
    """

    images: Tensor
    labels: Tensor | None
    index: Tensor
    partner: Tensor | None = None
    std: Tensor | None = None
    mirrored: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def first(self, count: int) -> "DataBatch":
        """The first ``count`` items, at most all."""
        return self._map(lambda tensor: tensor[:count])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "DataBatch":
        """The same batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "DataBatch":
        """The same batch in pinned memory, from which copies to an accelerator are asynchronous."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "DataBatch":
        return DataBatch(
            change(self.images),
            None if self.labels is None else change(self.labels),
            change(self.index),
            None if self.partner is None else change(self.partner),
            None if self.std is None else change(self.std),
            None if self.mirrored is None else change(self.mirrored),
        )


def gather_batch(
    arrays: ImageArrays,
    index: npt.NDArray[np.int64],
    *,
    mirrored: npt.NDArray[np.bool_] | None = None,
) -> DataBatch:
    """The items at ``index`` (B,) as a batch, copied; of a memory map only these are read.

    Where ``mirrored``, (B,), images are flipped left to right, and their partners with them; of
    latents, those of the flipped image are taken.
    """
    std = of_mirrored = None
    if arrays.posteriors is None:
        images = np.take(np.asarray(arrays.images), index, axis=0)
    else:
        images, std = arrays.posteriors.take(index, mirrored=mirrored)
        of_mirrored, mirrored = mirrored, None
    labels = None if arrays.labels is None else np.take(arrays.labels, index, axis=0)
    partner = None if arrays.partners is None else arrays.partners.take(index)
    if mirrored is not None:
        for drawn in (images, partner):
            if drawn is not None:
                drawn[mirrored] = drawn[mirrored][..., ::-1]
    return DataBatch(
        torch.from_numpy(images),
        None if labels is None else torch.from_numpy(labels),
        torch.from_numpy(index),
        None if partner is None else torch.from_numpy(partner),
        None if std is None else torch.from_numpy(std),
        None if of_mirrored is None else torch.from_numpy(of_mirrored),
    )


class BatchStream:
    """Endless training batches, in the order defined in the module docstring.

    Args:
        batch_size: Items per step over all ranks.
        order: Which items come one after the other; None = :class:`RandomEpochs`.
        hflip: Whether each image is mirrored with probability 1/2.
        start: First step of an iteration; a resumed run passes the step it stopped at.
        rank: Which slice of the global batch to return.
        world_size: Number of slices; must divide ``batch_size``.

    Raises:
        ValueError: A number is out of range, the data are empty, or points are to be mirrored.
        UsageError: The data cannot be brought in this order.
    """

    def __init__(
        self,
        arrays: ImageArrays,
        *,
        batch_size: int,
        seed: int,
        order: Order | None = None,
        hflip: bool = False,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but is {batch_size}")
        if len(arrays) == 0:
            raise ValueError(f"{arrays.name} is empty")
        if hflip and arrays.images.ndim != 4:
            raise ValueError("hflip=True needs images, but the data are points")
        _check(start, batch_size, rank, world_size)
        self.arrays = arrays
        self.batch_size = batch_size
        self.seed = seed
        self.hflip = hflip
        self.start = start
        self.rank = rank
        self.world_size = world_size
        self._index = (RandomEpochs() if order is None else order).of(arrays, seed=seed)

    def __iter__(self) -> Iterator[DataBatch]:
        return map(self.batch, itertools.count(self.start))

    def batch(
        self, step: int, *, rank: int | None = None, world_size: int | None = None
    ) -> DataBatch:
        """The batch of a step >= 0; rank and world size are the constructor's unless given."""
        rank = self.rank if rank is None else rank
        world_size = self.world_size if world_size is None else world_size
        _check(step, self.batch_size, rank, world_size)
        share = self.batch_size // world_size
        mirrored = None
        if self.hflip:
            rng = generator(self.seed, "flip", step)
            bits = torch.randint(0, 2, (self.batch_size,), generator=rng, dtype=torch.uint8)
            mirrored = bits.numpy()[rank * share : (rank + 1) * share].astype(bool)
        index = self._index(step * self.batch_size + rank * share, share)
        return gather_batch(self.arrays, index, mirrored=mirrored)


def _check(step: int, batch_size: int, rank: int, world_size: int) -> None:
    if step < 0:
        raise ValueError(f"step must be 0 or later, but is {step}")
    if world_size < 1 or batch_size % world_size:
        raise ValueError(f"world_size={world_size} must divide batch_size={batch_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in 0..{world_size - 1}, but is {rank}")
