"""Orders of the data: random epochs, and sequences of different images of one class."""

import numpy as np
import pytest
import torch

from flowexp.data.base import ImageArrays
from flowexp.data.orders import ClassSequences, RandomEpochs
from flowexp.data.stream import BatchStream
from flowexp.errors import UsageError
from flowexp.seeding import generator


def arrays(labels):
    labels = np.asarray(labels)
    images = np.zeros((len(labels), 1, 2, 2), dtype=np.uint8)
    classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    return ImageArrays.of(images, labels, num_classes=classes, name="made")


# Classes of 2, 30, 4 and 9 images.
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [2, 30, 4, 9]))
DATA = arrays(LABELS)


def test_random_epochs_are_the_order_of_a_stream_without_another():
    own = BatchStream(DATA, batch_size=8, seed=3, order=RandomEpochs())
    plain = BatchStream(DATA, batch_size=8, seed=3)
    for step in range(12):
        assert torch.equal(own.batch(step).index, plain.batch(step).index)
    # as every version has drawn it
    first = torch.randperm(len(DATA), generator=generator(3, "order", 0))
    assert torch.equal(plain.batch(0).index, first[:8])


def test_a_sequence_holds_different_images_of_one_class_that_has_enough():
    positions = ClassSequences(4).of(DATA, seed=1)
    sequences = positions(0, 4 * 500).reshape(500, 4)
    classes = LABELS[sequences]
    assert (classes == classes[:, :1]).all()
    assert all(len(set(row)) == 4 for row in sequences.tolist())
    assert set(classes[:, 0].tolist()) == {1, 2, 3}
    assert len({tuple(row) for row in sequences.tolist()}) > 300


def test_classes_images_and_their_places_are_uniform():
    # 6000 sequences; a deviation of 4.5 standard deviations has probability 7e-6 per number, and
    # 3 + 4 * 4 numbers are checked: a false alarm in 1 of 7000 seeds.
    count = 6000
    sequences = ClassSequences(4).of(DATA, seed=2)(0, 4 * count).reshape(count, 4)
    classes = LABELS[sequences[:, 0]]
    for c in (1, 2, 3):
        assert abs((classes == c).sum() - count / 3) < 4.5 * np.sqrt(count * 2 / 9)
    # every image of the class of four stands equally often at each place
    of_four = sequences[classes == 2]
    for place in range(4):
        for item in np.flatnonzero(LABELS == 2):
            found = (of_four[:, place] == item).sum()
            assert abs(found - len(of_four) / 4) < 4.5 * np.sqrt(len(of_four) * 3 / 16)


def test_it_is_a_function_of_seed_and_position():
    positions = ClassSequences(3).of(DATA, seed=5)
    whole = positions(0, 60)
    for first, count in ((0, 60), (3, 6), (4, 1), (7, 20), (59, 1)):
        assert np.array_equal(positions(first, count), whole[first : first + count])
    again = ClassSequences(3).of(DATA, seed=5)
    assert np.array_equal(again(30, 30), whole[30:])
    assert not np.array_equal(ClassSequences(3).of(DATA, seed=6)(0, 60), whole)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_whole_sequences(world_size):
    order = ClassSequences(2)
    stream = BatchStream(DATA, batch_size=8, seed=0, order=order)
    for step in (0, 5):
        parts = [
            stream.batch(step, rank=rank, world_size=world_size).index
            for rank in range(world_size)
        ]  # fmt: skip
        assert torch.equal(torch.cat(parts), stream.batch(step).index)
        for part in parts:
            pairs = LABELS[part.numpy()].reshape(-1, 2)
            assert (pairs[:, 0] == pairs[:, 1]).all()


def test_resuming_continues_exactly():
    stream = BatchStream(DATA, batch_size=6, seed=7, order=ClassSequences(3), hflip=True)
    batches = [stream.batch(step).index for step in range(6)]
    resumed = BatchStream(DATA, batch_size=6, seed=7, order=ClassSequences(3), hflip=True, start=4)
    for expected, batch in zip(batches[4:], resumed, strict=False):
        assert torch.equal(batch.index, expected)


def test_data_without_classes_or_with_small_ones_are_refused():
    with pytest.raises(ValueError, match="length is 0"):
        ClassSequences(0)
    vectors = arrays(np.eye(3, dtype=np.float32))
    unlabelled = ImageArrays.of(vectors.images, None, num_classes=0, name="bare")
    for data in (vectors, unlabelled):
        with pytest.raises(UsageError, match="no classes"):
            ClassSequences(2).of(data, seed=0)
    with pytest.raises(UsageError, match="the largest has 30") as refusal:
        ClassSequences(31).of(DATA, seed=0)
    assert refusal.value.key == "order.length"
