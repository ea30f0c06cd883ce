"""The source draw of each item of a data set: stored, or drawn again from its seed."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from flowexp.data.digests import Array, array_digest
from flowexp.data.quantization import as_data
from flowexp.paths import Source
from flowexp.seeding import generator

__all__ = [
    "JoinedPartners",
    "Partners",
    "SeededPartners",
    "StoredPartners",
    "noise_of_record",
]

RECORD_BYTES = 32
_WORD = 16


class Partners(ABC):
    """One source draw e per item, in the order of the items.

    The fingerprint is the sha256 (hex) of what defines the draws.
    """

    def __init__(self, count: int, *, fingerprint: str) -> None:
        self._count = count
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return self._count

    @abstractmethod
    def take(self, index: Array) -> npt.NDArray[np.float32]:
        """The draws of the items at ``index`` (B,), as a new array (B, ...)."""

    def select(self, index: Array) -> "ChosenPartners":
        """The draws of the items at these positions (or under this mask), in this order."""
        return ChosenPartners(self, index)


class StoredPartners(Partners):
    """Draws stored as an array, (N, ...), float32; or images, uint8, which become data in [-1, 1].

    Raises:
        ValueError: The array is of another dtype.
    """

    def __init__(self, arrays: Array) -> None:
        if arrays.dtype not in (np.dtype(np.float32), np.dtype(np.uint8)):
            raise ValueError(f"partners must be float32 or uint8, but are {arrays.dtype}")
        super().__init__(len(arrays), fingerprint=array_digest(arrays))
        self.arrays = arrays

    def take(self, index: Array) -> npt.NDArray[np.float32]:
        rows = np.take(np.asarray(self.arrays), index, axis=0)
        drawn: npt.NDArray[np.float32] = as_data(torch.from_numpy(rows)).numpy()
        return drawn


class SeededPartners(Partners):
    """Draws repeated on demand: ``source.prior`` from (seed, "latents"), on the CPU.

    Sampling starts from the same draws (:class:`flowexp.pipeline.latents.FlowexpLatents`), so they
    are the teacher's, bit for bit, at 8 bytes an item: its seed, int64.
    """

    def __init__(
        self, seeds: npt.NDArray[np.int64], *, source: Source, shape: Sequence[int]
    ) -> None:
        self.seeds = np.asarray(seeds, dtype=np.int64)
        self.source = source
        self.shape = tuple(shape)
        text = f"{source!r} {self.shape} {array_digest(self.seeds)}"
        super().__init__(len(self.seeds), fingerprint=_sha256(text))

    def take(self, index: Array) -> npt.NDArray[np.float32]:
        drawn = np.empty((len(index), *self.shape), dtype=np.float32)
        for row, seed in enumerate(self.seeds[index].tolist()):
            drawn[row] = self.source.prior((1, *self.shape), rng=generator(seed, "latents"))[0]
        return drawn


class JoinedPartners(Partners):
    """The items of several sets, at least one, one set after the other."""

    def __init__(self, parts: Sequence[Partners]) -> None:
        self.parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self.parts])
        prints = " ".join(part.fingerprint for part in self.parts)
        super().__init__(int(self._ends[-1]), fingerprint=_sha256(prints))

    def take(self, index: Array) -> npt.NDArray[np.float32]:
        if not len(index):
            raise ValueError("index is empty: there is nothing to take")
        which = np.searchsorted(self._ends, index, side="right")
        rows, found = [], []
        for number in np.unique(which):
            part, own = self.parts[number], np.flatnonzero(which == number)
            rows.append(own)
            found.append(part.take(index[own] - (self._ends[number] - len(part))))
        return np.concatenate(found)[np.argsort(np.concatenate(rows))]


class ChosenPartners(Partners):
    """Some items of a set, by their positions, (N,), or a boolean mask."""

    def __init__(self, whole: Partners, index: Array) -> None:
        self.whole = whole
        self.index = np.arange(len(whole))[index]
        text = f"{whole.fingerprint} {array_digest(self.index)}"
        super().__init__(len(self.index), fingerprint=_sha256(text))

    def take(self, index: Array) -> npt.NDArray[np.float32]:
        return self.whole.take(self.index[index])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def noise_of_record(record: bytes, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Noise stored as the state of the generator that drew it: float64 normals, cast to float32.

    A record is ``state`` and then ``inc`` of numpy's PCG64, each an unsigned integer of 128 bits,
    big-endian.

    Source: Lee et al., RF++, 2024, arXiv 2405.20320, and the authors' utils.py: for every image of
    a pair archive, ``z.zip`` holds 32 bytes instead of the noise itself.

    Raises:
        ValueError: The record has another length, or its increment is even, which no PCG64 has.
    """
    if len(record) != RECORD_BYTES:
        raise ValueError(f"record has {len(record)} bytes; expected {RECORD_BYTES}")
    state, increment = (int.from_bytes(part, "big") for part in (record[:_WORD], record[_WORD:]))
    if increment % 2 == 0:
        raise ValueError("record holds an even increment; it is not a state of PCG64")
    bits = np.random.PCG64(0)
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": state, "inc": increment},
        "has_uint32": 0,
        "uinteger": 0,
    }
    return np.random.Generator(bits).standard_normal(tuple(shape)).astype(np.float32)
