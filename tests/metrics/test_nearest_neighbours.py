import math

import numpy as np
import pytest
import torch

from flowexp.metrics import NearestNeighbours, RawValues
from tests.metrics.sets import Samples, points

TRAIN, HELDOUT = points(400, dim=5), points(300, dim=5, seed=1)


def prepared(**options):
    metric = NearestNeighbours(RawValues(), name="near_raw", **options)
    metric.prepare(TRAIN)
    return metric


def record(metric, x):
    accumulator = metric.accumulator()
    for batch in torch.split(torch.from_numpy(x), 64):
        accumulator.update(batch)
    return accumulator.compute()[0]


def test_copies_are_found_with_their_originals():
    metric = prepared()
    metric.floor(HELDOUT)
    found = record(metric, TRAIN.images[::-1].copy())
    assert found.value == 0
    assert found.extra["share_below"] == 1
    assert torch.equal(metric.found.indices, torch.arange(400).flip(0))


@pytest.mark.statistical
def test_new_samples_of_the_law_are_as_far_away_as_heldout_ones():
    """3000 samples, ratio within 5 standard errors; expected share 0.05, within 5 of 0.023."""
    metric = prepared(percentile=5.0)
    assert metric.floor(HELDOUT) == 1
    found = record(metric, points(3000, dim=5, seed=2).images)
    assert found.value == pytest.approx(1, abs=0.12)
    assert found.extra["share_below"] == pytest.approx(0.05, abs=0.08)


def test_distances_are_those_of_the_nearest_and_in_order():
    metric = prepared()
    metric.floor(HELDOUT)
    x = points(70, dim=5, seed=3).images
    found = record(metric, x)
    all_pairs = np.linalg.norm(x[:, None].astype(float) - TRAIN.images, axis=-1)
    np.testing.assert_allclose(metric.found.distances, all_pairs.min(1), rtol=1e-9)
    np.testing.assert_array_equal(metric.found.indices, all_pairs.argmin(1))
    assert found.extra["distance"] == pytest.approx(all_pairs.min(1).mean(), rel=1e-9)
    closest = metric.found.closest(3)
    np.testing.assert_array_equal(closest, np.argsort(all_pairs.min(1), kind="stable")[:3])


def test_without_heldout_images_there_is_a_distance_but_no_ratio():
    found = record(prepared(), HELDOUT.images)
    assert math.isnan(found.value)
    assert set(found.extra) == {"distance"}


def test_pixels_of_images():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    metric = NearestNeighbours(RawValues(), name="near_raw")
    metric.prepare(Samples(images, "f"))
    metric.floor(Samples(rng.integers(0, 256, (10, 1, 8, 8), dtype=np.uint8), "g"))
    moved = images[:5].copy()
    moved[:, 0, 0, 0] ^= 1
    assert record(metric, moved).value < 0.01
    assert metric.found.indices.tolist() == list(range(5))


@pytest.mark.parametrize("percentile", [0, 100])
def test_impossible_percentile(percentile):
    with pytest.raises(ValueError, match="percentile"):
        NearestNeighbours(RawValues(), name="near_raw", percentile=percentile)
