"""Verifying a store: a few pairs are made again by its teacher and compared."""

from typing import Any

import numpy as np
import numpy.typing as npt

from flowexp.data.pair_store import PairStore
from flowexp.errors import UsageError
from flowexp.pairs.base import PairMaker
from flowexp.pipeline import Pipeline

__all__ = ["verify"]

_LEVELS = 1
_LEVEL = 2.0 / 255.0
# Devices round differently, and a few pixels at edges are sensitive to that.
_SHARE = 0.99


def verify(store: PairStore, *, maker: PairMaker, teacher: Pipeline, count: int = 4) -> None:
    """Make some pairs of a store again; their labels must be equal and their values near.

    Near means: at least 99 % of the values within one of 256 levels.

    Args:
        store: The store.
        maker: The rule it was made by.
        teacher: The flow that its manifest names.
        count: Number of pairs, evenly spaced.

    Raises:
        UsageError: The teacher makes other pairs of these seeds, or a shard is damaged.
    """
    stored = store.some(count)
    again = maker.make(teacher, stored[store.manifest.identity])
    for name, column in again.items():
        if name == "nfe":
            continue
        if name not in stored or not _alike(stored[name], column):
            raise UsageError(
                f"{store.path} does not match {store.manifest.teacher['run']}: {name} of "
                f"{store.manifest.identity} {stored[store.manifest.identity].tolist()} differ.",
                key="pairs",
                remedy="Make the pairs again with flowexp pairs.",
            )


def _alike(stored: npt.NDArray[Any], again: npt.NDArray[Any]) -> bool:
    if stored.shape != again.shape or stored.dtype != again.dtype:
        return False
    if stored.dtype == np.int64:
        return np.array_equal(stored, again)
    tolerance = _LEVELS if stored.dtype == np.uint8 else _LEVEL
    near = np.abs(stored.astype(np.float64) - again.astype(np.float64)) <= tolerance
    return bool(near.mean() >= _SHARE)
