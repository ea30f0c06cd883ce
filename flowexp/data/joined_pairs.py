"""Several stores of pairs as one training set."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from flowexp.data.base import Array, ImageArrays
from flowexp.data.pair_store import PairStore
from flowexp.data.partners import JoinedPartners
from flowexp.data.quantization import as_data
from flowexp.errors import UsageError
from flowexp.paths import Source

__all__ = ["join_stores"]


def join_stores(stores: Sequence[PairStore], source: Source) -> ImageArrays:
    """The pairs of several stores as one set; a store named twice counts twice.

    Args:
        stores: At least one, of equal shape and number of classes.
        source: Source of the training path.

    Raises:
        UsageError: The stores do not match, or share pairs.
    """
    if len(stores) == 1:
        return stores[0].arrays(source)
    _require_alike(stores)
    parts = [store.arrays(source) for store in stores]
    labels = [part.labels for part in parts if part.labels is not None]
    kinds = {part.images.dtype for part in parts}
    images = [part.images if len(kinds) == 1 else _floats(part.images) for part in parts]
    prints = " ".join(part.fingerprint for part in parts)
    return ImageArrays(
        np.concatenate(images),
        np.concatenate(labels) if labels else None,
        parts[0].num_classes,
        hashlib.sha256(prints.encode()).hexdigest(),
        " + ".join(part.name for part in parts),
        partners=JoinedPartners([part.partners for part in parts if part.partners is not None]),
    )


def _floats(images: Array) -> Array:
    return as_data(torch.from_numpy(images)).numpy()


def _require_alike(stores: Sequence[PairStore]) -> None:
    first = stores[0]
    wanted = _common_properties(first)
    for other in stores[1:]:
        for name, theirs in _common_properties(other).items():
            mine = wanted[name]
            if mine != theirs:
                raise UsageError(
                    f"{first.path} and {other.path} differ in {name}: {mine} and {theirs}.",
                    key="pairs",
                    remedy="Join only pairs of one teacher and one guidance.",
                )
    _refuse_common_pairs(stores)


def _common_properties(store: PairStore) -> dict[str, object]:
    m = store.manifest
    return {
        "shape": m.shape,
        "num_classes": m.num_classes,
        "guidance": m.guidance,
        "teacher": m.teacher["sha256"],
    }


def _refuse_common_pairs(stores: Sequence[PairStore]) -> None:
    """Different folders must hold different pairs; the same folder may be named twice."""
    distinct = {store.path.resolve(): store for store in stores}.values()
    seen: dict[str, set[int]] = {}
    for store in distinct:
        mine = set(store.manifest.members().tolist())
        common = mine & seen.setdefault(store.manifest.start, set())
        if common:
            raise UsageError(
                f"{store.path} repeats {len(common)} pairs of another store "
                f"({store.manifest.identity} {min(common)} and others).",
                key="pairs",
                remedy="Make it with other seeds, for example seeds=100000-199999.",
            )
        seen[store.manifest.start] |= mine
