"""ADM's evaluator: distances in float16, reference batches, splits of consecutive samples."""

import numpy as np
import pytest
import torch

from flowexp.errors import UsageError
from flowexp.metrics import (
    ADMPrecisionRecall,
    FrechetDistance,
    InceptionScore,
    RawValues,
    frechet_distance,
    half_precision_recall,
    improved_precision_recall,
    inception_score,
)
from flowexp.metrics.protocol import INCEPTION_SPATIAL
from tests.metrics.sets import points


def features(count, *, seed, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, 16, generator=generator) + shift


def by_hand(generated, real, k):
    """Closed balls of squared distances, in integers."""

    def squared(a, b):
        return ((a[:, None] - b[None]) ** 2).sum(-1)

    radii = [np.sort(squared(x, x), axis=1)[:, k] for x in (generated, real)]
    cross = squared(generated, real)
    precision = (cross <= radii[1][None]).any(1).mean()
    recall = (cross <= radii[0][:, None]).any(0).mean()
    return precision, recall


@pytest.mark.parametrize("block", [7, 10_000])
@pytest.mark.parametrize("scale", [1, 300])
def test_integers_are_exact_also_with_ties_and_where_float16_overflows(scale, block):
    draws = np.random.default_rng(0)
    # up to 2048 float16 holds every integer, with factor 300 squares exceed its largest number
    generated, real = draws.integers(-4, 5, (40, 5)), draws.integers(-3, 6, (50, 5))
    found = half_precision_recall(
        torch.from_numpy(generated).float() * scale, torch.from_numpy(real).float() * scale,
        k=3, block=block,
    )  # fmt: skip
    assert found == pytest.approx(by_hand(generated, real, 3))
    assert 0 < found[0] < 1


def test_rounding_moves_it_a_little():
    generated, real = features(400, seed=0), features(500, seed=1, shift=0.3)
    exact = improved_precision_recall(generated, real, k=3)
    precision, recall = half_precision_recall(generated, real, k=3)
    assert precision == pytest.approx(exact["precision"], abs=0.02)
    assert recall == pytest.approx(exact["recall"], abs=0.02)


class Levels(RawValues):
    """Pixels with a name of Inception's kind of features."""

    dim = None


def batch_file(folder, *, name="batch.npz", **arrays):
    images = np.random.default_rng(3).integers(0, 256, (20, 2, 2, 3), dtype=np.uint8)
    file = folder / name
    np.savez(file, **{"arr_0": images, **arrays})
    return file, images


def test_the_images_of_the_batch_take_the_place_of_the_data_set(tmp_path):
    file, images = batch_file(tmp_path)
    metric = ADMPrecisionRecall(RawValues(), name="precision_recall_raw", reference_images=file)
    metric.check()
    metric.prepare(points(9))
    np.testing.assert_allclose(
        metric.reference, images.transpose(0, 3, 1, 2).reshape(20, -1) / 127.5 - 1, atol=1e-6
    )
    accumulator = metric.accumulator()
    accumulator.update(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    precision, recall = accumulator.compute()
    assert (precision.name, recall.name) == ("precision_raw", "recall_raw")
    assert (precision.value, recall.value) == (1.0, 1.0)
    assert precision.protocol.n_ref == 20
    assert precision.protocol.reference == "batch.npz"
    assert precision.protocol.settings == "k 3, float16 distances"


@pytest.mark.parametrize(
    "arrays", [{"arr_0": np.zeros((9, 2, 2, 3))}, {"arr_0": np.zeros((9, 3), np.uint8)}]
)
def test_a_batch_that_holds_no_images_is_named(tmp_path, arrays):
    file, _ = batch_file(tmp_path, **arrays)
    metric = ADMPrecisionRecall(RawValues(), name="precision_recall_raw", reference_images=file)
    with pytest.raises(UsageError, match=r"batch\.npz") as caught:
        metric.check()
    assert caught.value.key == "metric.precision_recall_raw.reference_images"
    missing = ADMPrecisionRecall(
        RawValues(), name="precision_recall_raw", reference_images=tmp_path / "none.npz"
    )
    with pytest.raises(UsageError, match=r"none\.npz"):
        missing.check()


def test_spatial_statistics_are_those_of_the_file_that_end_in_s(tmp_path, monkeypatch):
    reference, generated = points(500), points(300, seed=1, shift=0.5)
    values = reference.images.astype(np.float64)
    spatial = {"mu_s": values.mean(0), "sigma_s": np.cov(values, rowvar=False)}
    file, _ = batch_file(tmp_path, mu=np.zeros(7), sigma=np.eye(7), **spatial)
    monkeypatch.setattr(Levels, "name", INCEPTION_SPATIAL)
    metric = FrechetDistance(
        Levels(),
        name="fd_spatial",
        reference_statistics=file,
        reference_extractor=INCEPTION_SPATIAL,
        reference_resize="none",
    )
    metric.check()
    metric.prepare(points(9, seed=2))
    accumulator = metric.accumulator()
    accumulator.update(torch.from_numpy(generated.images))
    exact = frechet_distance(*(torch.from_numpy(s.images) for s in (generated, reference)))
    assert accumulator.compute()[0].value == pytest.approx(exact, rel=1e-9)


def test_scores_of_consecutive_splits_of_one_size():
    logits = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
    metric = InceptionScore(RawValues(), name="is_raw", splits=1, seed=None, split_size=10)
    metric.prepare(points(9))
    (record,) = metric.measure(logits)
    parts = [float(inception_score(logits[i : i + 10], splits=1)) for i in (0, 10, 20)]
    assert record.value == pytest.approx(np.mean(parts), rel=1e-12)
    assert record.protocol.metric == "IS (splits of 10)"
    assert record.protocol.settings == "splits of 10, in order"
    with pytest.raises(ValueError, match="split_size"):
        InceptionScore(RawValues(), name="is_raw", split_size=0)
