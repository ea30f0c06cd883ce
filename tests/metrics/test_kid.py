import numpy as np
import pytest
import torch

from flowexp.metrics import (
    GaussianKernel,
    PolynomialKernel,
    kernel_distance,
    mmd2_biased,
    mmd2_unbiased,
    subset_draws,
)


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
    assert kid.mean == pytest.approx(mmd2_unbiased(a, b), rel=1e-10)
    assert kid.std == pytest.approx(0, abs=1e-12)


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
