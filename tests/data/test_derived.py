"""Data sets made of others, pairs of data sets, and a data set as source."""

import numpy as np
import pytest
import torch

from flowexp.data import DatasetSource, gather_batch
from flowexp.data.derived import Blurred, Inverted, OfClasses
from flowexp.data.digits import Digits
from flowexp.data.paired import Paired
from flowexp.data.toy2d import TwoMoons
from flowexp.errors import UsageError
from flowexp.seeding import generator

FACTS = {"resolution": 8, "channels": 1, "num_classes": 10}


def test_classes_are_chosen_in_both_splits():
    chosen = OfClasses(Digits(), classes=[3, 8], **FACTS)
    whole = Digits()
    for arrays, all_of_them in (
        (chosen.train(), whole.train()),
        (chosen.heldout(), whole.heldout()),
    ):
        mask = np.isin(all_of_them.labels, [3, 8])
        assert np.array_equal(arrays.images, all_of_them.images[mask])
        assert set(arrays.labels.tolist()) == {3, 8}


@pytest.mark.parametrize("classes", [[], [10], [-1, 2]])
def test_unknown_classes_are_refused(classes):
    with pytest.raises(ValueError, match="allowed: some of 0 to 9"):
        OfClasses(Digits(), classes=classes, **FACTS)
    with pytest.raises(UsageError, match="has resolution 8, but 9 is declared"):
        OfClasses(Digits(), classes=[1], **{**FACTS, "resolution": 9})


def test_negatives():
    assert np.array_equal(Inverted(Digits()).train().images, 255 - Digits().train().images)
    with pytest.raises(ValueError, match="points"):
        Inverted(TwoMoons(num_classes=2))


def test_the_blur_keeps_constants_and_spreads_a_point():
    blur = Blurred(Digits()).filtered
    flat = np.full((1, 1, 8, 8), 77, dtype=np.uint8)
    assert np.array_equal(blur(flat), flat)
    point = np.zeros((1, 1, 8, 8), dtype=np.uint8)
    point[0, 0, 3, 4] = 160
    weights = np.outer([1, 2, 1], [1, 2, 1]) * 10
    assert np.array_equal(blur(point)[0, 0, 2:5, 3:6], weights)
    assert blur(point).sum() == 160


def test_pairs_of_data_sets_stay_together():
    paired = Paired(Digits(), partner=Inverted(Digits()), **FACTS)
    batch = gather_batch(paired.train(), np.array([5, 900]))
    x = batch.images / 127.5 - 1
    assert torch.allclose(batch.partner, -x, atol=1e-6)
    assert paired.heldout().partners is not None


def test_pairs_of_different_shapes_or_sizes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        Paired(Digits(), partner=TwoMoons(num_classes=2), **FACTS)
    with pytest.raises(UsageError, match="equal numbers"):
        Paired(Digits(), partner=OfClasses(Digits(), classes=[1], **FACTS), **FACTS).train()


def test_a_source_trains_on_one_split_and_starts_from_the_other():
    source = DatasetSource(Digits())
    train = set(map(bytes, Digits().train().images))
    heldout = set(map(bytes, Digits().heldout().images))
    for drawn, own, other in (
        (source.sample((64, 1, 8, 8), rng=generator(0, "source")), train, heldout),
        (source.prior((64, 1, 8, 8), rng=generator(0, "latents")), heldout, train),
    ):
        levels = (drawn * 127.5 + 128).to(torch.uint8).numpy()
        found = {bytes(row) for row in levels}
        assert found <= own
        assert len(found) > 40
        assert not found <= other
    again = source.prior((64, 1, 8, 8), rng=generator(0, "latents"))
    assert torch.equal(again, source.prior((64, 1, 8, 8), rng=generator(0, "latents")))
    assert not source.is_gaussian


def test_a_source_of_another_shape_or_split_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\)"):
        DatasetSource(Digits()).sample((2, 3, 8, 8), rng=generator(0, "source"))
    with pytest.raises(ValueError, match="allowed: heldout, train"):
        DatasetSource(Digits(), start_from="test")
