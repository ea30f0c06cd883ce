"""The order of the data in training: which item stands at each position of an endless stream.

An order is a function of (seed, position) only, so that a training continues exactly and the
batches do not depend on the number of processes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from flowexp.data.base import ImageArrays
from flowexp.errors import UsageError
from flowexp.requirements import Part, Parts, Unmet, all_of
from flowexp.seeding import generator

__all__ = ["ClassSequences", "Order", "Positions", "RandomEpochs"]

Index = npt.NDArray[np.int64]


class Positions(Protocol):
    """The items of one data set in their order."""

    def __call__(self, first: int, count: int) -> Index:
        """The items at the positions first .. first + count - 1 of the stream, (count,)."""


class Order(Part, ABC):
    """The order in which a training sees its data.

    Constructors raise ``ValueError`` for an argument outside the range that their docstring states.

    Attributes:
        length: Number of consecutive items that belong together.
    """

    length: int = 1

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network, times and pairs for sequences of this length."""
        yield from all_of(self._network(parts), self._times(parts))

    def _network(self, parts: Parts) -> Iterator[Unmet]:
        wanted = parts.network.sequence
        if wanted not in (1, self.length):
            name = type(self).__name__
            problem = f"the network takes sequences of {wanted} images, but {name} gives "
            given = "single images." if self.length == 1 else f"sequences of {self.length}."
            yield Unmet(".", problem + given, f"Use order=class_sequences order.length={wanted}.")

    def _times(self, parts: Parts) -> Iterator[Unmet]:
        wanted, law = parts.network.sequence, parts.timestep
        if wanted > 1 and law.sequence != wanted:
            problem = f"the network takes sequences of {wanted} images with falling times, which "
            problem += f"{type(law).__name__} does not draw."
            remedy = f"Use timestep=descending timestep.length={wanted}."
            yield Unmet("timestep", problem, remedy)

    @abstractmethod
    def of(self, arrays: ImageArrays, *, seed: int) -> Positions:
        """The order of these data.

        Raises:
            UsageError: They cannot be brought in this order.
        """


class RandomEpochs(Order):
    """A random permutation of all items in every epoch.

    Position p of N items belongs to epoch p // N and holds item perm_epoch[p % N], where
    perm_epoch is drawn from (seed, "order", epoch). Batches may span epochs, so no item is left
    out.
    """

    def of(self, arrays: ImageArrays, *, seed: int) -> Positions:
        return _Epochs(len(arrays), seed)


class ClassSequences(Order):
    """Sequences of different images of one class.

    The class is uniform over the classes with at least ``length`` images, whatever their sizes,
    the images are drawn from it without replacement; both from (seed, "order", sequence), where
    sequence p // length holds position p. There are no epochs: an image may come again before
    another one came.

    Args:
        length: Images per sequence, >= 1.

    Source: Hui et al., ARFlow, 2025, arXiv 2501.16085, the authors' code.
    """

    def __init__(self, length: int) -> None:
        if length < 1:
            raise ValueError(f"length is {length}; expected at least 1")
        self.length = int(length)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Data with classes, batches of whole sequences, and rows that stay in their order."""
        yield from all_of(
            super().needs(parts), self._classes(parts), self._rows(parts), self._batch(parts)
        )

    def _classes(self, parts: Parts) -> Iterator[Unmet]:
        if parts.dataset.num_classes == 0:
            name, data = type(self).__name__, type(parts.dataset).__name__
            problem = f"{name} needs images with classes, but {data} has no labels."
            yield Unmet(".", problem, "Take data with classes, or order=epochs.")

    def _rows(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.coupling.keeps_rows:
            name, coupling = type(self).__name__, type(parts.coupling).__name__
            problem = f"{coupling} puts images in another order than {name}."
            yield Unmet("coupling", problem, "Use coupling=independent.")

    def _batch(self, parts: Parts) -> Iterator[Unmet]:
        settings = parts.trainer
        for key, size in (
            ("batch_size", settings.batch_size),
            ("micro_batch", settings.micro_batch),
        ):
            if size is not None and size % self.length:
                problem = f"{size} images are not whole sequences of {self.length}."
                yield Unmet(f"trainer.{key}", problem, f"Choose a multiple of {self.length}.")

    def of(self, arrays: ImageArrays, *, seed: int) -> Positions:
        labels = arrays.labels
        if labels is None or labels.ndim != 1:
            raise UsageError(
                f"{arrays.name} has no classes, which sequences of one class need.",
                key="order",
                remedy="Take data with classes, or order=epochs.",
            )
        members = [np.flatnonzero(labels == c) for c in range(arrays.num_classes)]
        enough = [rows for rows in members if len(rows) >= self.length]
        if not enough:
            most = max(map(len, members))
            raise UsageError(
                f"no class of {arrays.name} has {self.length} images; the largest has {most}.",
                key="order.length",
                remedy=f"Choose at most {most}, as network.sequence if the network has sequences.",
            )
        return _Sequences(enough, self.length, seed)


class _Epochs:
    """The positions of :class:`RandomEpochs` over ``size`` items."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._orders: dict[int, Index] = {}

    def __call__(self, first: int, count: int) -> Index:
        pieces = []
        end = first + count
        while first < end:
            epoch, offset = divmod(first, self.size)
            pieces.append(self._order(epoch)[offset : offset + end - first])
            first += len(pieces[-1])
        return np.concatenate(pieces)

    def _order(self, epoch: int) -> Index:
        if epoch not in self._orders:
            while len(self._orders) >= 2:
                del self._orders[next(iter(self._orders))]
            rng = generator(self.seed, "order", epoch)
            self._orders[epoch] = torch.randperm(self.size, generator=rng).numpy()
        return self._orders[epoch]


class _Sequences:
    """The positions of :class:`ClassSequences`, from the items of each class."""

    def __init__(self, members: list[Index], length: int, seed: int) -> None:
        self.members = members
        self.length = length
        self.seed = seed

    def __call__(self, first: int, count: int) -> Index:
        before, after = first // self.length, -(-(first + count) // self.length)
        items = np.concatenate([self._sequence(number) for number in range(before, after)])
        offset = first - before * self.length
        return items[offset : offset + count]

    def _sequence(self, number: int) -> Index:
        rng = generator(self.seed, "order", number)
        u, *rest = torch.rand(1 + self.length, dtype=torch.float64, generator=rng).tolist()
        rows = self.members[int(u * len(self.members))]
        chosen: list[int] = []
        for i, share in enumerate(rest):
            place = int(share * (len(rows) - i))  # among those not chosen yet
            for earlier in sorted(chosen):
                place += place >= earlier
            chosen.append(place)
        return rows[chosen]
