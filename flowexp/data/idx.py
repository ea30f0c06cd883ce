"""The idx format of the MNIST family, plain or gzipped.

Two zero bytes, a type code (8 = unsigned byte), the number of axes, the length of each axis as a
big-endian 32-bit integer, then the values in C order. Magic 2051 = bytes in 3 axes, 2049 = in one.
"""

import gzip
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["parse_idx", "unpack"]

_UNSIGNED_BYTE = 8


def unpack(content: bytes) -> bytes:
    """The idx bytes of a file that may be gzipped.

    Raises:
        ValueError: If the gzip stream is damaged or ends early.
    """
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"the gzip stream is damaged or ends early ({error})") from error


def parse_idx(content: bytes, *, axes: int) -> npt.NDArray[Any]:
    """The array in an idx file's bytes.

    Args:
        content: The file, unpacked.
        axes: Number of axes it must have: 3 for pictures, 1 for labels.

    Returns:
        uint8, read-only.

    Raises:
        ValueError: If the magic number or the length is wrong.
    """
    wanted = (_UNSIGNED_BYTE << 8) | axes
    head = 4 + 4 * axes
    magic = int.from_bytes(content[:4], "big")
    if len(content) < head or magic != wanted:
        raise ValueError(f"the magic number is {magic}; expected {wanted}")
    shape = struct.unpack(f">{axes}I", content[4:head])
    expected = head + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise ValueError(f"{len(content)} bytes; expected {expected} by its header {shape}")
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape)
