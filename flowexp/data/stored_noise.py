"""Noise stored as the state of the generator that drew it.

Source: Lee et al., RF++, 2024, arXiv 2405.20320, and the authors' utils.py: for every image of a
pair archive, ``z.zip`` holds 32 bytes instead of the noise itself.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["RECORD_BYTES", "noise_of_record", "record_of"]

RECORD_BYTES = 32
_WORD = 16


def noise_of_record(record: bytes, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """The noise of a record: normal draws in float64, cast to float32.

    Args:
        record: 32 bytes: ``state`` and then ``inc`` of numpy's PCG64, each an unsigned integer of
            128 bits, big-endian.
        shape: Shape of the noise of one sample.

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


def record_of(bits: np.random.PCG64) -> bytes:
    """The record of a generator's current state, for :func:`noise_of_record`."""
    words = bits.state["state"]
    return b"".join(int(words[name]).to_bytes(_WORD, "big") for name in ("state", "inc"))
