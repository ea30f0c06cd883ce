"""Content digests: sha256 over arrays, independent of the file format."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flowexp.progress import counted

__all__ = ["Array", "array_digest", "combine_digests", "digest_header", "fingerprint"]

Array = npt.NDArray[Any]

_CHUNK_BYTES = 1 << 24


def digest_header(dtype: np.dtype[Any], shape: Sequence[int]) -> bytes:
    """Prefix of an array's digest: equal bytes of another dtype or shape get another digest."""
    return f"{dtype.str}{tuple(int(n) for n in shape)}".encode()


def array_digest(array: Array) -> str:
    """sha256 (hex) over dtype, shape and raw bytes in C order; memory maps are read in pieces."""
    digest = hashlib.sha256(digest_header(array.dtype, array.shape))
    rows = max(1, _CHUNK_BYTES // max(1, array.nbytes // max(1, len(array))))
    with counted("checked", total=len(array), unit="images") as task:
        for start in range(0, len(array), rows):
            digest.update(np.ascontiguousarray(array[start : start + rows]).data)
            task.advance(rows)
    return digest.hexdigest()


def combine_digests(images: str, labels: str | None) -> str:
    """Fingerprint of a data set from the digests of its images and of its labels."""
    return hashlib.sha256(f"images {images}\nlabels {labels or 'none'}\n".encode()).hexdigest()


def fingerprint(images: Array, labels: Array | None) -> str:
    """sha256 over images and labels, independent of the file format."""
    return combine_digests(array_digest(images), None if labels is None else array_digest(labels))
