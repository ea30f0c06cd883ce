"""scikit-learn's digits as uint8 with a fixed, balanced split."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from flowexp.data.digits import Digits
from flowexp.errors import UsageError


def test_split_is_whole_disjoint_and_balanced():
    data = Digits()
    data.locate()
    train, heldout = data.train(), data.heldout()
    assert (len(train), len(heldout)) == (1497, 300)
    assert np.bincount(heldout.labels).tolist() == [30] * 10
    both = np.concatenate([train.images, heldout.images]).reshape(1797, -1)
    original = np.rint(load_digits().data * 255 / 16)
    assert sorted(map(bytes, both)) == sorted(map(bytes, original.astype(np.uint8)))


def test_levels_cover_the_whole_range_and_give_the_file_back():
    images = Digits().train().images
    assert (images.min(), images.max()) == (0, 255)
    values = images.astype(np.float64) * 16 / 255
    assert np.abs(values - np.rint(values)).max() < 0.04
    assert len(np.unique(images)) == 17


def test_fingerprint_is_pinned():
    # A change means that split or scaling changed, and old runs cannot be compared any more.
    assert (
        Digits().train().fingerprint
        == "7b1ff443eab273b9ade2ab4e1de915a0693196a4423e9658f41c3a05d602cb18"
    )


def test_other_declarations_are_refused():
    with pytest.raises(UsageError, match=r"dataset\.resolution: digits has resolution 8, but 16"):
        Digits(resolution=16)
