import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from flowexp.metrics import (
    PrecisionRecall,
    RawValues,
    density_coverage,
    improved_precision_recall,
)
from tests.metrics.sets import points

REFERENCE, GENERATED = points(150, dim=6), points(130, dim=6, seed=1, shift=0.4)


def normal(n, d, *, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_far_sets_share_nothing_and_equal_sets_everything():
    a = normal(60, 4, seed=0)
    apart = improved_precision_recall(a, a + 100)
    assert apart == {"precision": 0, "recall": 0, "f_score": 0}
    same = improved_precision_recall(a, a)
    assert same == {"precision": 1, "recall": 1, "f_score": pytest.approx(1)}
    opened = density_coverage(a, a)
    assert (opened["precision"], opened["recall"], opened["coverage"]) == (1, 1, 1)
    assert density_coverage(a, a + 100)["density"] == 0


def test_a_collapsed_generator_is_precise_without_recall():
    real = normal(200, 2, seed=0)
    collapsed = real[:1] + 1e-3 * normal(200, 2, seed=1)
    both = improved_precision_recall(collapsed, real)
    assert both["precision"] == 1
    assert both["recall"] < 0.05
    assert improved_precision_recall(real, collapsed)["precision"] == both["recall"]


def test_balls_by_hand():
    """Reals 0, 1, 3 with k = 1: radii 1, 1, 2; closed balls hold their rim, open ones do not."""
    real = torch.tensor([[0.0], [1.0], [3.0]])
    generated = torch.tensor([[2.0], [5.0], [9.0]])
    closed, opened = (
        improved_precision_recall(generated, real, k=1),
        density_coverage(generated, real, k=1),
    )
    assert closed["precision"] == pytest.approx(2 / 3)
    assert opened["precision"] == pytest.approx(1 / 3)
    assert opened["density"] == pytest.approx(1 / 3)
    assert opened["coverage"] == pytest.approx(1 / 3)


def test_chunks_do_not_matter(monkeypatch):
    a, b = normal(50, 3, seed=0), normal(45, 3, seed=1)
    whole = improved_precision_recall(a, b), density_coverage(a, b)
    monkeypatch.setattr("flowexp.metrics.distances._BLOCK", 7 * 50)
    assert (improved_precision_recall(a, b), density_coverage(a, b)) == whole


@pytest.mark.parametrize("k", [0, 5])
def test_impossible_neighbours(k):
    with pytest.raises(ValueError, match="k must be"):
        improved_precision_recall(normal(5, 2, seed=0), normal(9, 2, seed=1), k=k)


def values(metric):
    metric.prepare(REFERENCE)
    accumulator = metric.accumulator()
    accumulator.update(torch.from_numpy(GENERATED.images))
    return {record.name: record for record in accumulator.compute()}


@pytest.mark.parametrize("k", [3, 5])
def test_equals_torch_fidelity(k):
    found = values(PrecisionRecall(RawValues(), name="precision_recall_raw", k=k))
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
    found = values(PrecisionRecall(RawValues(), name="precision_recall", density_k=5))
    a, b = torch.from_numpy(GENERATED.images), torch.from_numpy(REFERENCE.images)
    wanted = density_coverage(a, b, k=5)
    assert list(found) == ["precision", "recall", "density", "coverage"]
    assert found["density"].value == wanted["density"]
    assert found["coverage"].value == wanted["coverage"]


@pytest.mark.parametrize("options", [{"k": 0}, {"density_k": 0}, {"name": "recall"}])
def test_impossible_settings(options):
    with pytest.raises(ValueError, match=r"k=|name"):
        PrecisionRecall(RawValues(), **{"name": "precision_recall", **options})
