import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from flowexp.errors import UsageError
from flowexp.metrics import FrechetDistance, InceptionV3, RawValues, frechet_distance
from tests.metrics.sets import points

REFERENCE, GENERATED = points(500), points(300, seed=1, shift=0.5)
DECLARED = {"reference_extractor": "raw values", "reference_resize": "none"}


def save(file, samples=REFERENCE, **changes):
    values = samples.images.astype(np.float64)
    arrays = {"mu": values.mean(0), "sigma": np.cov(values, rowvar=False)} | changes
    np.savez(file, **{key: value for key, value in arrays.items() if value is not None})
    return file


def metric_of(file, **options):
    return FrechetDistance(
        RawValues(), name="fd_raw", reference_statistics=file, **{**DECLARED, **options}
    )


def test_the_file_takes_the_place_of_the_data_set(tmp_path):
    file = save(tmp_path / "toy-points.npz")
    metric = metric_of(file)
    metric.check()
    data = replace(points(7, seed=9), notice="re-encoded")
    metric.prepare(data)
    accumulator = metric.accumulator()
    accumulator.update(torch.from_numpy(GENERATED.images))
    record = accumulator.compute()[0]
    exact = frechet_distance(*(torch.from_numpy(s.images) for s in (GENERATED, REFERENCE)))
    assert record.value == pytest.approx(exact, rel=1e-9)
    protocol = record.protocol
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert protocol.reference_fingerprint == f"sha256 {digest}"
    assert (protocol.reference, protocol.reference_split, protocol.n_ref) == (
        "toy-points.npz",
        None,
        None,
    )
    assert record.title == "FD[raw values] 300 on toy-points.npz"
    assert protocol.notice == "re-encoded"


def test_the_floor_is_measured_against_the_file_as_well(tmp_path):
    metric = metric_of(save(tmp_path / "s.npz"))
    metric.prepare(points(7, seed=9))
    heldout = points(200, seed=4)
    exact = frechet_distance(*(torch.from_numpy(s.images) for s in (heldout, REFERENCE)))
    assert metric.floor(heldout) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("part", ["extractor", "resize"])
@pytest.mark.parametrize("declared", [None, "torch bilinear to 299"])
def test_statistics_of_another_protocol_are_refused(tmp_path, part, declared):
    metric = metric_of(save(tmp_path / "s.npz"), **{f"reference_{part}": declared})
    for use in (metric.check, lambda: metric.prepare(REFERENCE)):
        with pytest.raises(UsageError, match=f"the {part} of .*s\\.npz") as caught:
            use()
        assert caught.value.key == f"metric.fd_raw.reference_{part}"
        assert caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"mu": None}, "no mu and sigma"),
        ({"sigma": None}, "no mu and sigma"),
        ({"mu": np.zeros(4)}, r"mu \(4,\) and sigma \(3, 3\)"),
        ({"sigma": np.zeros((3, 4))}, r"sigma \(3, 4\)"),
        ({"mu": np.array([0, np.nan, 0])}, "not finite"),
        ({"mu": np.array([{}], dtype=object)}, "no mu and sigma"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, changes, text):
    metric = metric_of(save(tmp_path / "s.npz", **changes))
    with pytest.raises(UsageError, match=text) as caught:
        metric.check()
    assert caught.value.key == "metric.fd_raw.reference_statistics"


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.npz does not exist"):
        metric_of(tmp_path / "gone.npz").check()
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UsageError, match=r"text\.npz holds no mu and sigma"):
        metric_of(tmp_path / "text.npz").check()


def test_the_dimension_is_the_extractors(tmp_path):
    """Inception's weights are not asked for before the file has been found not to fit."""
    metric = FrechetDistance(
        InceptionV3(),
        name="fid",
        reference_statistics=save(tmp_path / "s.npz"),
        reference_extractor="Inception-v3 2015-12-05",
        reference_resize="TF1 bilinear to 299",
    )
    with pytest.raises(UsageError, match="has 2048 features"):
        metric.check()
