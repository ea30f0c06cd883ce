"""Noise stored as the state of its generator."""

import numpy as np
import pytest

from flowexp.data.partners import RECORD_BYTES, noise_of_record


def record_of(bits):
    words = bits.state["state"]
    return b"".join(int(words[name]).to_bytes(16, "big") for name in ("state", "inc"))


def test_a_record_gives_back_what_its_generator_drew():
    bits = np.random.PCG64(7)
    rng = np.random.Generator(bits)
    for shape in [(3, 4, 4), (1, 8, 8)]:
        record = record_of(bits)
        assert len(record) == RECORD_BYTES
        expected = rng.standard_normal(shape).astype(np.float32)
        found = noise_of_record(record, shape)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)


def test_what_is_no_record_is_named():
    with pytest.raises(ValueError, match="31 bytes"):
        noise_of_record(bytes(31), (2,))
    with pytest.raises(ValueError, match="even increment"):
        noise_of_record(bytes(32), (2,))
