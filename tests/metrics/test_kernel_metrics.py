import math

import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from flowexp.metrics import GaussianMMD, KernelDistanceMetric, RawValues, mmd2_unbiased
from tests.metrics.sets import points

REFERENCE, GENERATED = points(90, dim=16), points(110, dim=16, seed=1, shift=0.2)


def record(metric):
    metric.prepare(REFERENCE, batch_size=37)
    accumulator = metric.accumulator()
    for batch in torch.split(torch.from_numpy(GENERATED.images), 33):
        accumulator.update(batch)
    return accumulator.compute()[0]


def test_equals_torch_fidelity():
    found = record(
        KernelDistanceMetric(RawValues(), name="kid_raw", subsets=7, subset_size=40, seed=11)
    )
    theirs = kid_features_to_metric(
        torch.from_numpy(GENERATED.images).double(),
        torch.from_numpy(REFERENCE.images).double(),
        kid_subsets=7,
        kid_subset_size=40,
        rng_seed=11,
        verbose=False,
    )
    assert found.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert found.extra["std"] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)


def test_the_full_set_stands_beside_it_if_asked_for():
    a, b = torch.from_numpy(GENERATED.images), torch.from_numpy(REFERENCE.images)
    options = {"subsets": 2, "subset_size": 20}
    found = record(KernelDistanceMetric(RawValues(), name="kid_raw", **options))
    assert found.extra["full_set"] == pytest.approx(mmd2_unbiased(a, b), rel=1e-12)
    found = record(KernelDistanceMetric(RawValues(), name="kid_raw", full_set=False, **options))
    assert "full_set" not in found.extra


def test_gaussian_distance_by_the_formula():
    found = record(GaussianMMD(RawValues(), name="mmd_raw", sigma=3.0, scale=1000.0))
    x, y = torch.from_numpy(GENERATED.images).double(), torch.from_numpy(REFERENCE.images).double()

    def kernel_mean(a, b):
        return torch.exp(-(a[:, None] - b).square().sum(-1) / (2 * 3.0**2)).mean()

    wanted = 1000 * (kernel_mean(x, x) + kernel_mean(y, y) - 2 * kernel_mean(x, y))
    assert found.value == pytest.approx(float(wanted), rel=1e-10)
    assert found.protocol.settings == "Gaussian kernel, sigma 3, times 1000"
    assert found.title == "MMD[raw values] 110 on toy"


@pytest.mark.statistical
def test_equal_laws_are_within_the_noise_of_zero():
    """|z| < 5 by the spread of hardly overlapping subsets of two sets: false alarm 1e-5."""
    metric = KernelDistanceMetric(RawValues(), name="kid_raw", subsets=50, subset_size=80)
    metric.prepare(points(4000, seed=2))
    accumulator = metric.accumulator()
    accumulator.update(torch.from_numpy(points(4000, seed=3).images))
    found = accumulator.compute()[0]
    assert abs(found.value) < 5 * found.extra["std"] / math.sqrt(50)


@pytest.mark.parametrize("options", [{"subsets": 0}, {"subset_size": 1}])
def test_impossible_subsets(options):
    with pytest.raises(ValueError, match="subset"):
        KernelDistanceMetric(RawValues(), name="kid_raw", **options)


def test_impossible_width():
    with pytest.raises(ValueError, match="sigma"):
        GaussianMMD(RawValues(), name="mmd_raw", sigma=0.0)
