import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from flowexp.metrics import PrecisionRecallMetric, RawValues, density_coverage
from tests.metrics.sets import points

REFERENCE, GENERATED = points(150, dim=6), points(130, dim=6, seed=1, shift=0.4)


def values(metric):
    metric.prepare(REFERENCE)
    accumulator = metric.accumulator()
    accumulator.update(torch.from_numpy(GENERATED.images))
    return {record.name: record for record in accumulator.compute()}


@pytest.mark.parametrize("k", [3, 5])
def test_equals_torch_fidelity(k):
    found = values(PrecisionRecallMetric(RawValues(), name="precision_recall_raw", k=k))
    theirs = prc_features_to_metric(
        torch.from_numpy(GENERATED.images),
        torch.from_numpy(REFERENCE.images),
        prc_neighborhood=k,
        prc_batch_size=64,
        save_cpu_ram=False,
        verbose=False,
    )
    assert list(found) == ["precision_raw", "recall_raw"]
    assert found["precision_raw"].value == pytest.approx(theirs["precision"], abs=1e-6)
    assert found["recall_raw"].value == pytest.approx(theirs["recall"], abs=1e-6)
    assert found["recall_raw"].title == f"recall (k={k})[raw values] 130 on toy"


def test_density_and_coverage_if_asked_for():
    found = values(PrecisionRecallMetric(RawValues(), name="precision_recall", density_k=5))
    a, b = torch.from_numpy(GENERATED.images), torch.from_numpy(REFERENCE.images)
    wanted = density_coverage(a, b, k=5)
    assert list(found) == ["precision", "recall", "density", "coverage"]
    assert found["density"].value == wanted.density
    assert found["coverage"].value == wanted.coverage


@pytest.mark.parametrize("options", [{"k": 0}, {"density_k": 0}, {"name": "recall"}])
def test_impossible_settings(options):
    with pytest.raises(ValueError, match=r"k=|name"):
        PrecisionRecallMetric(RawValues(), **{"name": "precision_recall", **options})
