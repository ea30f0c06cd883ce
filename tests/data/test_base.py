"""Fingerprints identify content; arrays and declarations that contradict each other are refused."""

import hashlib

import numpy as np
import pytest

from flowexp.data.base import Dataset, ImageArrays, evenly_spaced
from flowexp.data.digests import array_digest, combine_digests, fingerprint
from flowexp.errors import UsageError


def pictures(count=6, channels=3, size=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def arrays(images=None, labels=None, num_classes=3):
    images = pictures() if images is None else images
    return ImageArrays.of(images, labels, num_classes=num_classes, name="made")


class Made(Dataset):
    """A data set that returns what it is given and declares what it is told."""

    def __init__(self, given, *, shape=(3, 4, 4), num_classes=3):
        super().__init__(name="made", shape=shape, num_classes=num_classes)
        self.given = given

    def locate(self):
        pass

    def _read(self):
        return self.given


def test_digest_is_the_documented_sha256():
    images = pictures()
    expected = hashlib.sha256(b"|u1(6, 3, 4, 4)" + images.tobytes()).hexdigest()
    assert array_digest(images) == expected


def test_digest_does_not_depend_on_memory_order_or_pieces(monkeypatch, tmp_path):
    images = pictures()
    whole = array_digest(images)
    assert array_digest(np.asfortranarray(images)) == whole
    np.save(tmp_path / "x.npy", images)
    monkeypatch.setattr("flowexp.data.digests._CHUNK_BYTES", 100)
    assert array_digest(images) == whole
    assert array_digest(np.load(tmp_path / "x.npy", mmap_mode="r")) == whole


def test_fingerprint_changes_with_any_part_of_the_content():
    images, labels = pictures(), np.arange(6) % 3
    changed_image, changed_label = images.copy(), labels.copy()
    changed_image[5, 2, 3, 3] ^= 1
    changed_label[0] = 1
    prints = [
        fingerprint(images, labels),
        fingerprint(images, None),
        fingerprint(changed_image, labels),
        fingerprint(images, changed_label),
        fingerprint(images[::-1], labels),
        fingerprint(images.reshape(6, 3, 2, 8), labels),
        fingerprint(images, labels.astype(np.int32)),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(images.copy(), labels.copy()) == prints[0]
    assert combine_digests(array_digest(images), array_digest(labels)) == prints[0]


def test_select_keeps_pairs_and_renews_the_fingerprint():
    images, labels = pictures(), np.arange(6) % 3
    part = arrays(images, labels).select(np.array([4, 1]))
    assert np.array_equal(part.images, images[[4, 1]])
    assert part.labels.tolist() == [1, 1]
    assert part.fingerprint == fingerprint(images[[4, 1]], labels[[4, 1]])
    assert len(arrays(images, labels).select(labels == 2)) == 2


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (pictures().astype(np.int64), None, "images must be uint8"),
        (pictures()[0], None, "images must be uint8"),
        (np.zeros((4, 2)), None, "float64"),
        (pictures(), np.zeros(6, dtype=np.int32), "labels must be int64"),
        (pictures(), np.zeros(5, dtype=np.int64), "5 labels for 6 images"),
    ],
)
def test_arrays_of_other_kinds_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        arrays(images, labels)


def test_what_is_declared_passes():
    labels = np.arange(6) % 3
    given = arrays(labels=labels)
    assert Made(given).train() is given
    assert Made(given).heldout() is None
    vectors = arrays(labels=np.zeros((6, 3), dtype=np.float32))
    assert Made(vectors).train() is vectors


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        (arrays(pictures(channels=1)), "dataset.channels", ("1", "3")),
        (arrays(pictures(size=8)), "dataset.resolution", ("8", "4")),
        (arrays(pictures()[..., :3, :]), "dataset.resolution", ("(3, 3, 4)", "(3, 4, 4)")),
        (arrays(labels=np.arange(6)), "dataset.num_classes", ("0..5", "num_classes=3")),
        (arrays(labels=-np.arange(6)), "dataset.num_classes", ("-5..0",)),
        (arrays(labels=None), "dataset.num_classes", ("0", "3")),
        (arrays(labels=np.zeros((6, 4), dtype=np.float32)), "dataset.num_classes", ("4", "3")),
        (arrays(pictures(0), np.zeros(0, dtype=np.int64)), "dataset", ("no sample",)),
    ],
)
def test_data_other_than_declared_is_refused_by_key_and_values(given, key, words):
    with pytest.raises(UsageError) as caught:
        Made(given).train()
    assert caught.value.key == key
    for word in words:
        assert word in str(caught.value)


def test_evenly_spaced_takes_the_same_number_of_each_class_over_the_whole_file():
    labels = np.array([0, 1, 1, 0, 1] * 20)
    mask = evenly_spaced(labels, per_class=8)
    for label in (0, 1):
        members = np.flatnonzero(labels == label)
        taken = np.flatnonzero(mask[members])
        assert len(taken) == 8
        assert np.ptp(np.diff(taken)) <= 1
        assert taken[0] <= len(members) // 8
    with pytest.raises(ValueError, match="class 0 has 40 items"):
        evenly_spaced(labels, per_class=41)
