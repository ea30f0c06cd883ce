"""Coupling of a step's batch: each process's share alone, or the batch of all together."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from flowexp.couplings import Coupling, Pairs
from flowexp.data import DatasetSource, ImageArrays, as_data
from flowexp.parameterizations import Conditions
from flowexp.paths import Source

__all__ = ["Share", "TrainingItems", "couple", "prepare"]

_ON_ACCELERATOR = 4 << 30  # bytes of images that are kept on a device


@dataclass(frozen=True, eq=False)
class TrainingItems:
    """The items of a training's data; with ``mirrored``, their mirror images follow them."""

    arrays: ImageArrays
    mirrored: bool
    _placed: dict[torch.device, Tensor] = field(default_factory=dict, repr=False)

    @property
    def fingerprint(self) -> str:
        """That of the arrays, and whether there are mirror images."""
        return f"{self.arrays.fingerprint}{'+mirrored' if self.mirrored else ''}"

    def __len__(self) -> int:
        return len(self.arrays) * (2 if self.mirrored else 1)

    @cached_property
    def labels(self) -> Tensor | None:
        """Labels of the items."""
        if self.arrays.labels is None:
            return None
        labels = torch.from_numpy(np.array(self.arrays.labels))
        return torch.cat([labels, labels]) if self.mirrored else labels

    def data(self, rows: Tensor) -> Tensor:
        """See :class:`flowexp.couplings.Items`."""
        number = len(self.arrays)
        data = as_data(self._images(rows % number))
        if self.mirrored:
            back = (rows >= number).reshape(-1, *[1] * (data.ndim - 1))
            data = torch.where(back, data.flip(-1), data)
        return data

    def _images(self, rows: Tensor) -> Tensor:
        """Images at ``rows``, gathered where they are read: on an accelerator if there is room."""
        if rows.device.type == "cpu" or self.arrays.images.nbytes > _ON_ACCELERATOR:
            taken = np.take(np.asarray(self.arrays.images), rows.cpu().numpy(), axis=0)
            return torch.from_numpy(taken).to(rows.device)
        if rows.device not in self._placed:
            images = torch.from_numpy(np.ascontiguousarray(self.arrays.images))
            self._placed[rows.device] = images.to(rows.device)
        return self._placed[rows.device][rows]


def prepare(
    coupling: Coupling, arrays: ImageArrays, source: Source, *, mirrored: bool, device: torch.device
) -> None:
    """Let a coupling do what depends on all the data of a training; see ``Coupling.prepare``."""
    if not coupling.chooses_items:
        return
    identity = source.identity()
    if isinstance(source, DatasetSource):
        identity = f"{identity} {source.dataset.train().fingerprint}"
    items = TrainingItems(arrays, mirrored)
    coupling.prepare(items, source, source_identity=identity, device=device)


@dataclass(frozen=True)
class Share:
    """The rows of a process in the batch of all; the first row of the first process is 0."""

    rank: int
    world_size: int
    size: int

    @property
    def rows(self) -> slice:
        """This process's."""
        return slice(self.rank * self.size, (self.rank + 1) * self.size)


def couple(
    coupling: Coupling,
    x: Tensor,
    e: Tensor,
    conditions: Conditions,
    *,
    partner: Tensor | None,
    share: Share,
    images_seen: int,
    rng_of: Callable[[int], torch.Generator],
) -> Pairs:
    """The coupled pairs of this process's share.

    ``x``, ``conditions`` and ``partner`` are those of the share, ``e`` of the batch of all
    processes. ``rng_of`` makes the generator of a number: the rank, or 0 where all processes find
    the same pairs.
    """
    alone = share.world_size == 1 or not coupling.across_devices
    if not alone:
        x = gathered(x, share)
        conditions = {n: None if c is None else gathered(c, share) for n, c in conditions.items()}
        partner = None if partner is None else gathered(partner, share)
    pairs = coupling.pair(
        x,
        e[share.rows] if alone else e,
        conditions,
        rng=rng_of(share.rank if alone else 0),
        partner=partner,
        images_seen=images_seen,
    )
    return pairs if alone else pairs.rows(share.rows)


def gathered(own: Tensor, share: Share) -> Tensor:
    """The rows of all processes, in the order of their ranks, on the device of ``own``."""
    parts = [
        torch.empty_like(own, memory_format=torch.contiguous_format)
        for _ in range(share.world_size)
    ]
    torch.distributed.all_gather(parts, own.contiguous())
    return torch.cat(parts)
