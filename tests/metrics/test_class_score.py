import math

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from flowexp.metrics import InceptionScoreMetric, RawValues
from tests.metrics.sets import Samples, points

LOGITS = points(105, dim=12, seed=4)


def record(metric, x=LOGITS.images):
    metric.prepare(points(3, dim=12))
    accumulator = metric.accumulator()
    for batch in torch.split(torch.from_numpy(x), 25):
        accumulator.update(batch)
    return accumulator.compute()[0]


@pytest.mark.parametrize(("splits", "seed"), [(10, 2020), (3, 7), (1, None), (4, None)])
def test_equals_torch_fidelity(splits, seed):
    found = record(InceptionScoreMetric(RawValues(), name="is_raw", splits=splits, seed=seed))
    theirs = isc_features_to_metric(
        torch.from_numpy(LOGITS.images), splits, seed is not None, 0 if seed is None else seed
    )
    assert found.value == pytest.approx(theirs["inception_score_mean"], rel=1e-10)
    std = theirs["inception_score_std"]
    assert found.extra["std"] == pytest.approx(std, rel=1e-9, abs=1e-12)


def test_the_title_says_how_many_splits():
    found = record(InceptionScoreMetric(RawValues(), name="is_raw", splits=5))
    assert found.title == "IS (5 splits)[raw values] 105 on toy"
    assert found.protocol.settings == "5 splits, shuffled by seed 2020"


def test_certain_and_balanced_classes_score_their_number():
    logits = 1000 * torch.eye(12).repeat(20, 1)
    found = record(InceptionScoreMetric(RawValues(), name="is_raw", splits=1), logits.numpy())
    assert found.value == pytest.approx(12, rel=1e-9)


def test_the_reference_is_not_even_read():
    class Unreadable(Samples):
        def __getattribute__(self, name):
            if name == "images":
                return range(5)
            return super().__getattribute__(name)

    metric = InceptionScoreMetric(RawValues(), name="is_raw", splits=2)
    metric.prepare(Unreadable(None, "f"))
    with pytest.raises(RuntimeError, match="prepare"):
        _ = metric.reference
    assert math.isnan(metric.floor(points(1, dim=12)))


def test_impossible_splits():
    with pytest.raises(ValueError, match="splits"):
        InceptionScoreMetric(RawValues(), name="is_raw", splits=0)
