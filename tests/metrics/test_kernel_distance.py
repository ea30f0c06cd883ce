import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from flowexp.metrics import (
    GaussianKernel,
    GaussianMMD,
    KernelDistance,
    PolynomialKernel,
    RawValues,
    kernel_distance,
    mmd2_biased,
    mmd2_unbiased,
    subset_draws,
)
from tests.metrics.sets import points

REFERENCE, GENERATED = points(90, dim=16), points(110, dim=16, seed=1, shift=0.2)


def normal(n, d, *, seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) + shift


@pytest.mark.parametrize("kernel", [PolynomialKernel(), GaussianKernel(sigma=2.0)])
def test_equals_the_double_sum_for_every_chunk(kernel):
    a, b = normal(11, 4, seed=0), normal(7, 4, seed=1, shift=0.3)
    within = sum(
        kernel(x[i : i + 1], x[j : j + 1]).item() / (len(x) * (len(x) - 1))
        for x in (a, b)
        for i in range(len(x))
        for j in range(len(x))
        if i != j
    )
    wanted = within - 2 * kernel(a, b).mean().item()
    for chunk in (1, 3, 5, 100):
        value = mmd2_unbiased(a, b, kernel=kernel, chunk=chunk)
        assert value == pytest.approx(wanted, rel=1e-11)


def test_linear_kernel_has_the_closed_form_of_the_means():
    """With k = a . b, MMD^2 is |m_a - m_b|^2 minus the variance of both means."""
    a, b = normal(40, 3, seed=0), normal(50, 3, seed=1, shift=1.0)
    value = mmd2_unbiased(a, b, kernel=PolynomialKernel(degree=1, gamma=1.0, coef0=0.0))
    wanted = (a.mean(0) - b.mean(0)).square().sum() - a.var(0).sum() / 40 - b.var(0).sum() / 50
    assert value == pytest.approx(float(wanted), rel=1e-10)


@pytest.mark.statistical
def test_unbiased_for_equal_laws():
    """Mean of 200 independent values within 4 standard errors of 0: false alarm 6e-5."""
    values = [
        mmd2_unbiased(normal(30, 4, seed=2 * i), normal(20, 4, seed=2 * i + 1)) for i in range(200)
    ]
    assert min(values) < 0
    assert abs(np.mean(values)) < 4 * np.std(values, ddof=1) / 200**0.5


def test_draws_are_without_replacement_and_bounded():
    of_a, of_b = subset_draws(50, 40, subsets=3, subset_size=40)
    assert of_a.shape == of_b.shape == (3, 40)
    assert all(len(set(row.tolist())) == 40 for row in (*of_a, *of_b))
    with pytest.raises(ValueError, match="subset_size"):
        subset_draws(50, 40, subset_size=41)


def test_whole_sets_as_subsets_are_the_full_statistic():
    a, b = normal(30, 4, seed=0), normal(30, 4, seed=1, shift=0.5)
    kid = kernel_distance(a, b, draws=subset_draws(30, 30, subsets=2, subset_size=30))
    assert kid.shape == (2,)
    assert kid.tolist() == pytest.approx([mmd2_unbiased(a, b)] * 2, rel=1e-10)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="a and b"):
        mmd2_unbiased(torch.zeros(3, 2), torch.zeros(3, 4))


def test_biased_estimator_is_the_mean_over_all_pairs():
    kernel = GaussianKernel(sigma=2.0)
    a, b = normal(11, 4, seed=0), normal(7, 4, seed=1, shift=0.3)
    wanted = kernel(a, a).mean() + kernel(b, b).mean() - 2 * kernel(a, b).mean()
    for chunk in (1, 3, 100):
        value = mmd2_biased(a, b, kernel=kernel, chunk=chunk)
        assert value == pytest.approx(float(wanted), rel=1e-11)
    assert mmd2_biased(a, a, kernel=kernel) == pytest.approx(0, abs=1e-14)


def record(metric):
    metric.prepare(REFERENCE, batch_size=37)
    accumulator = metric.accumulator()
    for batch in torch.split(torch.from_numpy(GENERATED.images), 33):
        accumulator.update(batch)
    return accumulator.compute()[0]


def test_equals_torch_fidelity():
    found = record(KernelDistance(RawValues(), name="kid_raw", subsets=7, subset_size=40, seed=11))
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
    found = record(KernelDistance(RawValues(), name="kid_raw", **options))
    assert found.extra["full_set"] == pytest.approx(mmd2_unbiased(a, b), rel=1e-12)
    found = record(KernelDistance(RawValues(), name="kid_raw", full_set=False, **options))
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
    metric = KernelDistance(RawValues(), name="kid_raw", subsets=50, subset_size=80)
    metric.prepare(points(4000, seed=2))
    accumulator = metric.accumulator()
    accumulator.update(torch.from_numpy(points(4000, seed=3).images))
    found = accumulator.compute()[0]
    assert abs(found.value) < 5 * found.extra["std"] / math.sqrt(50)


@pytest.mark.parametrize("options", [{"subsets": 0}, {"subset_size": 1}])
def test_impossible_subsets(options):
    with pytest.raises(ValueError, match="subset"):
        KernelDistance(RawValues(), name="kid_raw", **options)


def test_impossible_width():
    with pytest.raises(ValueError, match="sigma"):
        GaussianMMD(RawValues(), name="mmd_raw", sigma=0.0)
