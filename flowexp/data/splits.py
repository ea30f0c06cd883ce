"""Splits without random numbers, which cannot change with a library version."""

import numpy as np

from flowexp.data.digests import Array

__all__ = ["evenly_among", "evenly_spaced"]


def evenly_among(members: Array, count: int) -> Array:
    """``count`` of these positions, evenly spaced, each in the middle of its share."""
    return members[(2 * np.arange(count) + 1) * len(members) // (2 * max(1, count))]


def evenly_spaced(labels: Array, *, per_class: int) -> Array:
    """Mask of ``per_class`` items of every class, evenly spaced in the order of the file.

    A class with fewer items raises ``ValueError``.
    """
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < per_class:
            raise ValueError(f"per_class={per_class} but class {label} has {len(members)} items")
        mask[evenly_among(members, per_class)] = True
    return mask
