"""Partners are the draws they stand for, and are mirrored with their pictures."""

import numpy as np
import pytest
import torch

from flowexp.data import BatchStream, ImageArrays, gather_batch
from flowexp.data.partners import JoinedPartners, SeededPartners, StoredPartners
from flowexp.paths import Gaussian, StudentT
from flowexp.pipeline import FlowexpLatents

SHAPE = (2, 3, 4)


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, *SHAPE)).astype(np.float32)


def arrays(n=12):
    images = np.arange(n * 24, dtype=np.uint8).reshape(n, *SHAPE)
    return ImageArrays.of(
        images, None, num_classes=0, name="made", partners=StoredPartners(noise(n))
    )


@pytest.mark.parametrize("source", [Gaussian(), StudentT(3.0)])
def test_seeds_give_the_draws_that_sampling_starts_from_bit_for_bit(source):
    seeds = np.array([10_000_000, 7, 3])
    partners = SeededPartners(seeds, source=source, shape=SHAPE)
    drawn = FlowexpLatents().draw([3, 10_000_000], shape=SHAPE, source=source).e
    assert np.array_equal(partners.take(np.array([2, 0])), drawn.numpy())
    assert len(partners) == 3


def test_joined_sets_keep_the_order_of_their_parts():
    first, second = StoredPartners(noise(5, 1)), StoredPartners(noise(4, 2))
    joined = JoinedPartners([first, second])
    assert len(joined) == 9
    index = np.array([8, 0, 4, 5, 0])
    both = np.concatenate([noise(5, 1), noise(4, 2)])
    assert np.array_equal(joined.take(index), both[index])


def test_pictures_as_partners_become_data():
    levels = np.array([[[[0, 255], [51, 204]]]], dtype=np.uint8)
    assert np.allclose(StoredPartners(levels).take(np.array([0])), [[[[-1, 1], [-0.6, 0.6]]]])


def test_a_mirrored_picture_has_its_partner_mirrored():
    index, mirrored = np.array([3, 5, 7]), np.array([True, False, True])
    plain = gather_batch(arrays(), index)
    flipped = gather_batch(arrays(), index, mirrored=mirrored)
    for before, after in ((plain.images, flipped.images), (plain.partner, flipped.partner)):
        assert torch.equal(after[0], before[0].flip(-1))
        assert torch.equal(after[1], before[1])
        assert torch.equal(after[2], before[2].flip(-1))
        assert not torch.equal(after[0], before[0])


def test_mirroring_does_not_change_what_is_stored():
    data = arrays()
    before = data.partners.take(np.arange(12))
    gather_batch(data, np.arange(12), mirrored=np.ones(12, dtype=bool))
    assert np.array_equal(data.partners.take(np.arange(12)), before)


def test_a_stream_never_pairs_anew():
    data = arrays()
    stream = BatchStream(data, batch_size=6, seed=1, hflip=True)
    for step in (0, 1, 9):
        batch = stream.batch(step)
        for image, partner, i in zip(batch.images, batch.partner, batch.index, strict=True):
            own = gather_batch(data, i[None].numpy())
            if torch.equal(image, own.images[0]):
                assert torch.equal(partner, own.partner[0])
            else:
                assert torch.equal(image, own.images[0].flip(-1))
                assert torch.equal(partner, own.partner[0].flip(-1))


def test_a_selection_keeps_its_partners():
    data = arrays()
    chosen = data.select(np.array([4, 2]))
    assert np.array_equal(chosen.partners.take(np.array([1])), data.partners.take(np.array([2])))
    mask = np.zeros(12, dtype=bool)
    mask[[1, 6]] = True
    assert np.array_equal(
        data.select(mask).partners.take(np.array([1])), data.partners.take(np.array([6]))
    )


def test_the_fingerprint_knows_the_partners():
    images = np.zeros((3, *SHAPE), dtype=np.uint8)
    made = [
        ImageArrays.of(images, None, num_classes=0, name="a", partners=partners).fingerprint
        for partners in (None, StoredPartners(noise(3, 1)), StoredPartners(noise(3, 2)))
    ]
    assert len(set(made)) == 3


def test_as_many_partners_as_pictures():
    with pytest.raises(ValueError, match="2 partners for 3 images"):
        ImageArrays.of(
            np.zeros((3, *SHAPE), dtype=np.uint8),
            None,
            num_classes=0,
            name="a",
            partners=StoredPartners(noise(2)),
        )
    with pytest.raises(ValueError, match="float64"):
        StoredPartners(np.zeros((2, 3)))
