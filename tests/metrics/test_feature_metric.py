import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from flowexp.errors import UsageError
from flowexp.metrics import (
    EfficientNetLite0,
    InceptionScore,
    InceptionV3,
    KernelDistance,
    Metric,
    NearestNeighbours,
    PrecisionRecall,
    RawValues,
)
from tests.metrics.sets import CountingRaw, points

SETTINGS = {
    "kid": lambda extractor: KernelDistance(extractor, name="kid_raw", subsets=4, subset_size=30),
    "is": lambda extractor: InceptionScore(extractor, name="is_raw", splits=4),
    "prc": lambda extractor: PrecisionRecall(extractor, name="precision_recall_raw", density_k=5),
    "near": lambda extractor: NearestNeighbours(extractor, name="near_raw"),
}


def prepared(kind, *, reference=None, **options):
    extractor = CountingRaw()
    metric = SETTINGS[kind](extractor)
    metric.prepare(reference or points(120), **options)
    return metric, extractor


def records(metric, x):
    accumulator = metric.accumulator()
    accumulator.update(torch.from_numpy(x))
    return accumulator.compute()


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_ranks_gives_the_value_of_one(kind, world):
    """Batches go round the ranks as evaluation hands them out, the last one is short."""
    metric, _ = prepared(kind)
    metric.floor(points(60, seed=5))
    batches = torch.split(torch.from_numpy(points(97, seed=1).images), 10)
    whole = metric.accumulator()
    for batch in batches:
        whole.update(batch)
    total = None
    for rank in range(world):
        own = metric.accumulator()
        for batch in batches[rank::world]:
            own.update(batch)
        sent = metric.accumulator()
        sent.load({key: value.clone() for key, value in own.state().items()})
        if total is None:
            total = sent
        else:
            total.merge(sent)
    assert torch.equal(total.rows, whole.rows)
    assert total.compute() == whole.compute()
    assert {r.protocol.n_gen for r in total.compute()} == {97}
    again = metric.accumulator()
    again.load(total.state())
    assert torch.equal(again.rows, whole.rows)


@pytest.mark.parametrize("kind", SETTINGS)
def test_records_carry_the_whole_protocol(kind):
    reference = replace(points(120, name="moons/train"), notice="toy")
    metric, _ = prepared(kind, reference=reference)
    assert isinstance(metric, Metric)
    for record in records(metric, points(100, seed=1).images):
        protocol = record.protocol
        assert (protocol.reference, protocol.reference_split) == ("moons", "train")
        assert (protocol.n_ref, protocol.n_gen, protocol.notice) == (120, 100, "toy")
        assert protocol.reference_fingerprint == reference.fingerprint
        assert protocol.settings == metric.settings
        assert record.key == f"eval/{record.name}_100"
        assert record.title == f"{protocol.metric}[raw values] 100 on moons"


@pytest.mark.parametrize(("kind", "count"), [("kid", 29), ("is", 3), ("prc", 5), ("near", 0)])
def test_too_few_samples_are_refused_with_the_key(kind, count):
    metric, _ = prepared(kind)
    assert metric.minimum_samples == count + 1
    with pytest.raises(UsageError, match=f"has {count}") as caught:
        records(metric, points(count, seed=1).images)
    assert caught.value.key == f"metric.{metric.name}"
    assert caught.value.remedy
    assert records(metric, points(count + 1, seed=1).images)


def test_a_small_reference_is_refused_before_anything_is_computed():
    extractor = CountingRaw()
    metric = SETTINGS["kid"](extractor)
    with pytest.raises(UsageError, match=r"needs at least 30 samples, but toy/train has 29"):
        metric.prepare(points(29))
    assert extractor.seen == 0


@pytest.mark.parametrize("kind", ["kid", "is", "prc"])
def test_the_floor_is_the_value_of_the_heldout_set(kind):
    metric, _ = prepared(kind)
    heldout = points(70, seed=3)
    wanted = records(metric, heldout.images)
    assert metric.floor(heldout) == wanted[0].value
    for record, floor in zip(records(metric, points(50, seed=1).images), wanted, strict=True):
        assert record.extra["floor"] == floor.value
        assert record.extra["floor_count"] == 70


def test_a_floor_of_few_samples_is_left_out(caplog):
    metric, _ = prepared("kid")
    with caplog.at_level(logging.INFO):
        assert math.isnan(metric.floor(points(20, seed=3, name="toy/heldout")))
    assert "toy/heldout has 20 samples" in caplog.text
    assert "floor" not in records(metric, points(50, seed=1).images)[0].extra


def test_another_reference_forgets_the_floor():
    metric, _ = prepared("kid")
    metric.floor(points(70, seed=3))
    metric.prepare(points(130, seed=8))
    assert "floor" not in records(metric, points(50, seed=1).images)[0].extra


def test_a_cached_file_without_its_features_is_computed_again(tmp_path, caplog):
    first, _ = prepared("kid", cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    with np.load(file) as stored:
        protocol = stored["protocol"]
    np.savez(file, protocol=protocol)
    with caplog.at_level(logging.WARNING):
        again, extractor = prepared("kid", cache_dir=tmp_path)
    assert "is damaged" in caplog.text
    assert extractor.seen == 120
    assert torch.equal(again.reference, first.reference)


def test_features_are_cached_apart_from_moments(tmp_path):
    from flowexp.metrics import FrechetDistance

    FrechetDistance(RawValues(), name="fd_raw").prepare(points(120), cache_dir=tmp_path)
    first, extractor = prepared("kid", cache_dir=tmp_path)
    assert extractor.seen == 120
    again, extractor = prepared("prc", cache_dir=tmp_path)
    assert extractor.seen == 0
    assert torch.equal(first.reference, again.reference)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", SETTINGS)
def test_diverged_points_give_nan_with_a_warning(kind, caplog):
    metric, _ = prepared(kind)
    x = points(50, seed=1).images.copy()
    x[3, 1] = np.nan
    with caplog.at_level(logging.WARNING):
        found = records(metric, x)
    assert all(math.isnan(record.value) for record in found)
    assert "not finite" in caplog.text


def test_names_of_published_protocols_need_their_features():
    for name in ("kid", "KID", "my_fid"):
        with pytest.raises(ValueError, match="must not be called"):
            KernelDistance(RawValues(), name=name)
    with pytest.raises(ValueError, match="must not be called INCEPTION_SCORE"):
        InceptionScore(InceptionV3(), name="inception_score")
    assert KernelDistance(InceptionV3(), name="kid").name == "kid"
    assert KernelDistance(EfficientNetLite0(), name="kid_efflite0").name == "kid_efflite0"


def test_wrong_use_is_named():
    metric = SETTINGS["kid"](RawValues())
    for use in (metric.accumulator, lambda: metric.reference, lambda: metric.floor(points(50))):
        with pytest.raises(RuntimeError, match="prepare"):
            use()
    with pytest.raises(ValueError, match="batch_size"):
        metric.prepare(points(120), batch_size=0)


def test_missing_weights_name_the_key_of_this_metric(tmp_path):
    metric = KernelDistance(InceptionV3(weights=tmp_path / "none.pth"), name="kid")
    with pytest.raises(UsageError, match=r"none\.pth") as caught:
        metric.check()
    assert caught.value.key == "metric.kid.extractor.weights"


@pytest.mark.gpu
@pytest.mark.parametrize("kind", SETTINGS)
def test_values_on_cuda_equal_those_on_cpu(kind):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    found = []
    for device in ("cpu", "cuda"):
        metric, _ = prepared(kind, device=device)
        metric.floor(points(60, seed=5))
        accumulator = metric.accumulator()
        for batch in torch.split(torch.from_numpy(points(97, seed=1).images).to(device), 10):
            accumulator.update(batch)
        found.append([(record.value, *record.extra.values()) for record in accumulator.compute()])
    assert found[0] == [pytest.approx(values, rel=1e-6, abs=1e-9) for values in found[1]]
