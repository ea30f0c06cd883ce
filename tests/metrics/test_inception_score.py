import math

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from flowexp.metrics import InceptionScore, RawValues, inception_score, shuffle_order
from tests.metrics.sets import Samples, points

LOGITS = points(105, dim=12, seed=4)


def test_certain_and_even_classes_score_their_number():
    logits = 1000 * torch.eye(5).repeat(20, 1)
    assert inception_score(logits, splits=4).tolist() == pytest.approx([5.0] * 4, rel=1e-12)


def test_no_information_scores_one():
    assert inception_score(torch.zeros(30, 7), splits=3).tolist() == pytest.approx([1] * 3)


def test_an_unreached_class_does_not_give_nan():
    logits = torch.tensor([[1e5, 0.0, -1e5], [0.0, 1e5, -1e5]])
    assert inception_score(logits, splits=1).item() == pytest.approx(2.0)


def test_order_moves_samples_between_splits():
    logits = 50 * torch.eye(2)[torch.arange(40) // 20]
    assert inception_score(logits, splits=2).tolist() == pytest.approx([1.0, 1.0])
    assert inception_score(logits, splits=2, order=shuffle_order(40)).mean() > 1.5
    assert sorted(shuffle_order(40).tolist()) == list(range(40))


@pytest.mark.parametrize("splits", [0, 31])
def test_impossible_splits_of_logits(splits):
    with pytest.raises(ValueError, match="splits"):
        inception_score(torch.zeros(30, 7), splits=splits)


def record(metric, x=LOGITS.images):
    metric.prepare(points(3, dim=12))
    accumulator = metric.accumulator()
    for batch in torch.split(torch.from_numpy(x), 25):
        accumulator.update(batch)
    return accumulator.compute()[0]


@pytest.mark.parametrize(("splits", "seed"), [(10, 2020), (3, 7), (1, None), (4, None)])
def test_equals_torch_fidelity(splits, seed):
    found = record(InceptionScore(RawValues(), name="is_raw", splits=splits, seed=seed))
    theirs = isc_features_to_metric(
        torch.from_numpy(LOGITS.images), splits, seed is not None, 0 if seed is None else seed
    )
    assert found.value == pytest.approx(theirs["inception_score_mean"], rel=1e-10)
    std = theirs["inception_score_std"]
    assert found.extra["std"] == pytest.approx(std, rel=1e-9, abs=1e-12)


def test_the_title_says_how_many_splits():
    found = record(InceptionScore(RawValues(), name="is_raw", splits=5))
    assert found.title == "IS (5 splits)[raw values] 105 on toy"
    assert found.protocol.settings == "5 splits, shuffled by seed 2020"


def test_the_metric_scores_certain_and_balanced_classes_by_their_number():
    logits = 1000 * torch.eye(12).repeat(20, 1)
    found = record(InceptionScore(RawValues(), name="is_raw", splits=1), logits.numpy())
    assert found.value == pytest.approx(12, rel=1e-9)


def test_the_reference_is_not_even_read():
    class Unreadable(Samples):
        def __getattribute__(self, name):
            if name == "images":
                return range(5)
            return super().__getattribute__(name)

    metric = InceptionScore(RawValues(), name="is_raw", splits=2)
    metric.prepare(Unreadable(None, "f"))
    with pytest.raises(RuntimeError, match="prepare"):
        _ = metric.reference
    assert math.isnan(metric.floor(points(1, dim=12)))


def test_impossible_splits():
    with pytest.raises(ValueError, match="splits"):
        InceptionScore(RawValues(), name="is_raw", splits=0)
