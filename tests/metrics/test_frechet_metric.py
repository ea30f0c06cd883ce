import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from flowexp.errors import UsageError
from flowexp.metrics import (
    EfficientNetLite0,
    FrechetDistance,
    InceptionSpatial,
    InceptionV3,
    Metric,
    RawValues,
    first_available,
    frechet_distance,
)
from tests.metrics.sets import CountingRaw, Samples, points


def prepared(reference=None, *, cache_dir=None, **options):
    extractor = CountingRaw()
    metric = FrechetDistance(extractor, name="fd_raw")
    metric.prepare(reference or points(500), cache_dir=cache_dir, **options)
    return metric, extractor


def value_of(metric, x):
    accumulator = metric.accumulator()
    accumulator.update(torch.from_numpy(x))
    return accumulator.compute()[0].value


def test_the_value_is_the_distance_of_the_features():
    reference, generated = points(500), points(400, seed=1, shift=0.5)
    metric, _ = prepared(reference, batch_size=33)
    assert isinstance(metric, Metric)
    exact = frechet_distance(torch.from_numpy(generated.images), torch.from_numpy(reference.images))
    assert value_of(metric, generated.images) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("dim", [5, 40])
def test_equals_torch_fidelity_on_the_same_features(dim):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    reference, generated = points(500, dim=dim), points(300, dim=dim, seed=1, shift=0.3)
    metric, _ = prepared(reference)
    sets = [torch.from_numpy(s.images) for s in (generated, reference)]
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(x) for x in sets), verbose=False)
    ours = value_of(metric, generated.images)
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


@pytest.mark.parametrize(("n_ref", "n_gen"), [(20, 15), (20, 500), (500, 15)])
def test_few_samples_take_the_exact_route(n_ref, n_gen):
    reference, generated = points(n_ref, dim=40), points(n_gen, dim=40, seed=1)
    metric, _ = prepared(reference)
    a, b = torch.from_numpy(generated.images), torch.from_numpy(reference.images)
    rel = 1e-6 if n_ref < n_gen else 1e-9
    assert value_of(metric, generated.images) == pytest.approx(frechet_distance(a, b), rel=rel)


def test_ranks_of_unequal_length_equal_a_single_stream():
    metric, _ = prepared()
    x = torch.from_numpy(points(203, seed=1).images)
    whole = metric.accumulator()
    whole.update(x)
    ranks = [metric.accumulator() for _ in range(3)]
    for rank, accumulator in enumerate(ranks[:2]):
        for batch in torch.split(x[rank::2], 10):
            accumulator.update(batch)
    total = metric.accumulator()
    total.load(ranks[0].state())
    for other in ranks[1:]:
        total.merge(other)
    record = total.compute()[0]
    assert record.protocol.n_gen == 203
    assert record.value == pytest.approx(whole.compute()[0].value, rel=1e-10)


def test_records_carry_the_protocol():
    reference = replace(points(500, name="moons/train"), notice="toy")
    metric, _ = prepared(reference)
    accumulator = metric.accumulator()
    accumulator.update(torch.from_numpy(points(1000, seed=1).images))
    record = accumulator.compute()[0]
    assert record.key == "eval/fd_raw_1k"
    assert record.title == "FD[raw values] 1k on moons"
    protocol = record.protocol
    assert protocol.reference_fingerprint == reference.fingerprint
    assert (protocol.reference_split, protocol.n_ref, protocol.notice) == ("train", 500, "toy")


def test_floor_is_the_heldout_distance_and_goes_beside_every_value(tmp_path):
    metric, extractor = prepared(cache_dir=tmp_path)
    heldout = points(100, seed=2, name="toy/heldout")
    floor = metric.floor(heldout)
    assert floor == pytest.approx(value_of(metric, heldout.images), rel=1e-12)
    accumulator = metric.accumulator()
    accumulator.update(torch.from_numpy(points(300, seed=3).images))
    assert accumulator.compute()[0].extra == {"floor": floor, "floor_count": 100}
    seen = extractor.seen
    assert metric.floor(heldout) == floor
    assert extractor.seen == seen


def test_cache_hit_and_misses(tmp_path):
    first, extractor = prepared(cache_dir=tmp_path / "deep")
    assert extractor.seen == 500
    again, extractor = prepared(cache_dir=tmp_path / "deep")
    assert extractor.seen == 0
    x = points(100, seed=1).images
    assert value_of(again, x) == value_of(first, x)
    _, extractor = prepared(points(500, seed=9), cache_dir=tmp_path / "deep")
    assert extractor.seen == 500
    files = sorted(p.name for p in (tmp_path / "deep").iterdir())
    assert len(files) == 2
    assert all(name.startswith("toy-train-") and name.endswith(".npz") for name in files)


def test_another_extractor_has_another_file(tmp_path):
    prepared(cache_dir=tmp_path)

    class Other(CountingRaw):
        name = "other values"

    extractor = Other()
    FrechetDistance(extractor, name="fd_other").prepare(points(500), cache_dir=tmp_path)
    assert extractor.seen == 500
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_a_damaged_cache_file_is_mended(tmp_path, damage, caplog):
    first, _ = prepared(cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    middle = content.find(first.reference.mean.numpy().tobytes())
    assert middle > 0
    flipped = bytes(content[:middle]) + bytes([content[middle] ^ 1]) + bytes(content[middle + 1 :])
    broken = {"cut": content[: len(content) // 2], "flip": flipped, "empty": b"", "foreign": b"no"}
    file.write_bytes(broken[damage])
    with caplog.at_level(logging.WARNING):
        again, extractor = prepared(cache_dir=tmp_path)
    assert "damaged" in caplog.text
    assert extractor.seen == 500
    x = points(100, seed=1).images
    assert value_of(again, x) == value_of(first, x)
    _, extractor = prepared(cache_dir=tmp_path)
    assert extractor.seen == 0


def test_a_cache_file_of_another_protocol_is_refused(tmp_path):
    prepared(cache_dir=tmp_path)
    (mine,) = tmp_path.iterdir()
    prepared(points(500, seed=9), cache_dir=tmp_path)
    (other,) = set(tmp_path.iterdir()) - {mine}
    mine.write_bytes(other.read_bytes())
    with pytest.raises(UsageError, match=r"another protocol \(differs in fingerprint\)"):
        prepared(cache_dir=tmp_path)


def test_memory_mapped_read_only_references_are_taken(tmp_path):
    np.save(tmp_path / "x.npy", points(500).images)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    metric, _ = prepared(Samples(mapped, "f"))
    direct, _ = prepared()
    torch.testing.assert_close(metric.reference.root, direct.reference.root, rtol=0, atol=0)


def test_diverged_points_give_nan_with_a_warning(caplog):
    metric, _ = prepared()
    x = points(50, seed=1).images.copy()
    x[3, 1] = np.inf
    with caplog.at_level(logging.WARNING):
        assert math.isnan(value_of(metric, x))
    assert "not finite" in caplog.text


def test_only_inception_may_be_called_fid():
    with pytest.raises(ValueError, match="must not be called FID"):
        FrechetDistance(EfficientNetLite0(), name="fid")
    with pytest.raises(ValueError, match="must not be called FID"):
        FrechetDistance(RawValues(), name="my_FID")
    with pytest.raises(ValueError, match="must not be called sFID"):
        FrechetDistance(InceptionV3(), name="sfid")
    with pytest.raises(ValueError, match="must not be called FID"):
        FrechetDistance(InceptionSpatial(), name="fid")
    assert FrechetDistance(InceptionV3(), name="fid").name == "fid"
    assert FrechetDistance(InceptionSpatial(), name="sfid").name == "sfid"


def test_wrong_use_is_named():
    metric = FrechetDistance(RawValues(), name="fd_raw")
    with pytest.raises(RuntimeError, match="prepare"):
        metric.accumulator()
    metric, _ = prepared()
    with pytest.raises(UsageError, match=r"at least 2 samples.* has 0") as caught:
        metric.accumulator().compute()
    assert caught.value.key == "metric.fd_raw"
    with pytest.raises(ValueError, match="batch_size"):
        prepared(batch_size=0)


def test_missing_weights_stop_before_anything_is_computed(tmp_path):
    metric = FrechetDistance(InceptionV3(weights=tmp_path / "none.pth"), name="fid")
    with pytest.raises(UsageError, match=r"none\.pth"):
        metric.check()
    with pytest.raises(UsageError, match=r"none\.pth"):
        metric.prepare(points(10), cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_first_available_falls_through_and_says_why(tmp_path, caplog):
    fid = FrechetDistance(InceptionV3(weights=tmp_path / "none.pth"), name="fid")
    raw = FrechetDistance(RawValues(), name="fd_raw")
    with caplog.at_level(logging.INFO):
        assert first_available([fid, raw]) is raw
    assert len(caplog.records) == 1
    assert "fd_raw" in caplog.text
    assert "none.pth" in caplog.text
    assert first_available([raw, fid]) is raw
    with pytest.raises(UsageError, match=r"none\.pth"):
        first_available([fid])
    with pytest.raises(ValueError, match="candidates"):
        first_available([])
