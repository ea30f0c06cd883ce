"""The order: a permutation per epoch, a function of (seed, step), independent of the ranks."""

import itertools
import math

import numpy as np
import pytest
import torch

from flowexp.data.base import ImageArrays
from flowexp.data.stream import BatchStream, gather_batch


def arrays(count=50, size=4, labels=True):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return ImageArrays.of(
        images, np.arange(count) % 7 if labels else None, num_classes=7, name="made"
    )


def stream(data=None, **changes):
    options = {"batch_size": 8, "seed": 5, **changes}
    return BatchStream(arrays() if data is None else data, **options)


def same(a, b):
    return (
        torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.index, b.index)
    )


def test_every_epoch_shows_every_item_once_across_straddling_batches():
    many = stream(batch_size=8)
    index = torch.cat([many.batch(step).index for step in range(25)])
    assert 50 % 8 != 0
    epochs = index.reshape(4, 50)
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, torch.arange(50))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4


def test_a_batch_larger_than_the_data_holds_whole_epochs():
    batch = stream(arrays(10), batch_size=35).batch(0)
    assert torch.equal(torch.bincount(batch.index[:30]), torch.full((10,), 3))


def test_items_are_what_the_index_says():
    data = arrays()
    batch = stream(data).batch(3)
    assert torch.equal(batch.images, torch.from_numpy(data.images[batch.index.numpy()]))
    assert torch.equal(batch.labels, batch.index % 7)
    assert batch.images.dtype == torch.uint8
    assert batch.index.dtype == batch.labels.dtype == torch.int64
    assert len(batch) == 8
    assert stream(arrays(labels=False)).batch(0).labels is None


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_slices_of_the_ranks_make_up_the_global_batch(world_size):
    whole = stream(hflip=True)
    for step in (0, 6, 31):
        parts = [whole.batch(step, rank=r, world_size=world_size) for r in range(world_size)]
        own = [stream(hflip=True, rank=r, world_size=world_size).batch(step)
               for r in range(world_size)]  # fmt: skip
        assert all(same(a, b) for a, b in zip(parts, own, strict=True))
        expected = whole.batch(step)
        assert torch.equal(torch.cat([p.images for p in parts]), expected.images)
        assert torch.equal(torch.cat([p.labels for p in parts]), expected.labels)
        assert torch.equal(torch.cat([p.index for p in parts]), expected.index)


def test_resuming_at_any_step_continues_exactly():
    uninterrupted = list(itertools.islice(stream(hflip=True), 30))
    for start in (0, 1, 6, 7, 13, 29):
        resumed = itertools.islice(stream(hflip=True, start=start), 30 - start)
        assert all(same(a, b) for a, b in zip(uninterrupted[start:], resumed, strict=True))


def test_steps_can_be_asked_for_in_any_order():
    forward = [stream().batch(step) for step in range(30)]
    jumping = stream()
    for step in (29, 0, 17, 3, 28, 1):
        assert same(jumping.batch(step), forward[step])


def test_only_two_permutations_are_kept():
    walked = stream()
    for step in range(40):
        walked.batch(step)
    assert len(walked._index._orders) == 2


def test_seed_changes_order_and_flips_independently():
    order = [stream(seed=s).batch(0).index.tolist() for s in range(6)]
    assert len({tuple(o) for o in order}) == 6
    assert stream(hflip=True).batch(0).index.tolist() == order[5]


def mirrored_rows(data, batch):
    plain = torch.from_numpy(data.images[batch.index.numpy()])
    flipped = torch.from_numpy(data.images[batch.index.numpy()][..., ::-1].copy())
    rows = torch.tensor([torch.equal(a, b) for a, b in zip(batch.images, flipped, strict=True)])
    assert torch.equal(batch.images, torch.where(rows[:, None, None, None], flipped, plain))
    return rows


@pytest.mark.statistical
def test_half_of_the_pictures_are_mirrored_independently_of_their_row():
    # 4,000 fair coins: a deviation of 4.5 standard deviations happens by chance in 7 of 10^6 seeds;
    # the 40 rows are each held to 5.
    data = arrays(200)
    flips = stream(data, batch_size=40, hflip=True)
    rows = torch.stack([mirrored_rows(data, flips.batch(step)) for step in range(100)]).double()
    assert abs(rows.mean().item() - 0.5) < 4.5 * 0.5 / math.sqrt(rows.numel())
    assert (rows.mean(0) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(100)
    neighbours = ((rows[:, 1:] - 0.5) * (rows[:, :-1] - 0.5)).mean().item() / 0.25
    assert abs(neighbours) < 4.5 / math.sqrt(39 * 100)


def test_mirroring_twice_gives_the_picture_back():
    data = arrays()
    index = np.arange(50)
    mask = index % 2 == 0
    once = gather_batch(data, index, mirrored=mask).images.numpy()
    assert not np.array_equal(once, data.images)
    again = ImageArrays.of(once, None, num_classes=0, name="once")
    twice = gather_batch(again, index, mirrored=mask).images.numpy()
    assert np.array_equal(twice, data.images)


def test_batches_are_copies():
    data = arrays()
    before = data.images.copy()
    batch = stream(data, hflip=True).batch(0)
    batch.images.zero_()
    batch.index.zero_()
    assert np.array_equal(data.images, before)
    fresh = stream(data)
    fresh.batch(0).index.zero_()
    assert torch.equal(fresh.batch(0).index, stream(data).batch(0).index)


def test_memory_map_gives_the_same_batches(tmp_path):
    data = arrays()
    np.save(tmp_path / "images.npy", data.images)
    mapped = ImageArrays.of(
        np.load(tmp_path / "images.npy", mmap_mode="r"), data.labels, num_classes=7, name="mapped"
    )
    assert isinstance(mapped.images, np.memmap)
    assert mapped.fingerprint == data.fingerprint
    for step in range(9):
        assert same(stream(mapped, hflip=True).batch(step), stream(data, hflip=True).batch(step))


def test_points_are_shown_and_never_mirrored():
    points = ImageArrays.of(
        np.arange(20, dtype=np.float32).reshape(10, 2), None, num_classes=0, name="points"
    )
    batch = stream(points).batch(1)
    assert batch.images.dtype == torch.float32
    assert torch.equal(batch.images[:, 0], 2.0 * batch.index)
    with pytest.raises(ValueError, match="points"):
        stream(points, hflip=True)


def test_to_moves_all_parts():
    moved = stream().batch(0).to("meta")
    assert {moved.images.device.type, moved.labels.device.type, moved.index.device.type} == {"meta"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"start": -1}, "step"),
        ({"world_size": 3}, r"world_size=3 must divide batch_size=8"),
        ({"world_size": 0}, "world_size=0"),
        ({"rank": 2, "world_size": 2}, r"rank must be in 0\.\.1, but is 2"),
        ({"rank": -1}, "rank"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        stream(**changes)


def test_empty_data_and_negative_steps_are_refused():
    with pytest.raises(ValueError, match="empty"):
        stream(arrays(0))
    with pytest.raises(ValueError, match="-1"):
        stream().batch(-1)
