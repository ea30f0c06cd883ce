import numpy as np
import pytest
import torch

from flowexp.metrics import (
    FeatureMoments,
    FrechetReference,
    frechet_distance,
    frechet_distance_from_moments,
)
from flowexp.metrics.frechet import one_thread


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_sets(n=300, m=250, d=12):
    return normal(n, d, seed=0) @ normal(d, d, seed=1), normal(m, d, seed=2) @ normal(
        d, d, seed=3
    ) + normal(d, seed=4)


def moments(x):
    accumulator = FeatureMoments()
    accumulator.update(x)
    return accumulator.mean, accumulator.covariance


def test_features_and_moments_agree():
    a, b = two_sets()
    exact = frechet_distance(a, b)
    assert frechet_distance_from_moments(*moments(a), *moments(b)) == pytest.approx(
        exact, rel=1e-10
    )
    mixed = FrechetReference.from_moments(*moments(b)).distance_to_features(a)
    assert mixed == pytest.approx(exact, rel=1e-10)
    mixed = FrechetReference.from_features(b).distance_to_moments(*moments(a))
    assert mixed == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize(("n", "m", "d"), [(300, 250, 12), (9, 7, 30), (9, 100, 30), (100, 9, 30)])
def test_identities(n, m, d):
    a, b = two_sets(n, m, d)
    value = frechet_distance(a, b)
    rotation = torch.linalg.qr(normal(d, d, seed=5)).Q
    assert value > 1
    assert frechet_distance(b, a) == pytest.approx(value, rel=1e-10)
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(value, rel=1e-10)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * value, rel=1e-10)
    assert frechet_distance(a.flip(0), b) == pytest.approx(value, rel=1e-12)
    assert frechet_distance(a + 7, b + 7) == pytest.approx(value, rel=1e-10)
    scale = float(a.var(0).sum())
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-13 * scale)


def test_commuting_covariances_have_a_closed_form():
    d = 10
    basis = torch.linalg.qr(normal(d, d, seed=6)).Q
    w_a, w_b = torch.arange(1.0, d + 1).double(), torch.linspace(0, 3, d).double()
    mean_a, mean_b = normal(d, seed=7), normal(d, seed=8)
    closed = (mean_a - mean_b).square().sum() + (w_a.sqrt() - w_b.sqrt()).square().sum()
    value = frechet_distance_from_moments(
        mean_a, basis * w_a @ basis.T, mean_b, basis * w_b @ basis.T
    )
    assert value == pytest.approx(float(closed), rel=1e-9)


def test_rank_deficient_features_are_exact_where_moments_are_not():
    a, b = two_sets(8, 11, 60)
    factors = [((x - x.mean(0)) / (len(x) - 1) ** 0.5).numpy() for x in (a, b)]
    nuclear = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    exact = ((a.mean(0) - b.mean(0)) ** 2).sum().item() - 2 * nuclear
    exact += sum((f**2).sum() for f in factors)
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-12)
    assert frechet_distance_from_moments(*moments(a), *moments(b)) == pytest.approx(exact, rel=1e-6)


def test_torch_fidelity_on_the_same_features():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = (x.float() for x in two_sets(400, 300, 32))
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False
    )["frechet_inception_distance"]
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.statistical
def test_bias_falls_as_one_over_n():
    """Two sets of one Gaussian: FD ~ c / n, so c(n) = n FD is flat; 40 runs, 5 sd of its error."""
    d = 6
    scaled = {}
    for n in (200, 800):
        runs = [
            n * frechet_distance(normal(n, d, seed=1000 * n + i), normal(n, d, seed=7 * n + i))
            for i in range(0, 400_000, 10_000)
        ]
        scaled[n] = np.mean(runs), np.std(runs, ddof=1) / len(runs) ** 0.5
    (small, small_error), (large, large_error) = scaled[200], scaled[800]
    assert small > 5
    assert abs(small - large) < 5 * np.hypot(small_error, large_error) + 0.05 * large


def test_constant_sets_differ_by_their_means():
    a, b = torch.zeros(5, 3), torch.full((6, 3), 2.0)
    assert frechet_distance(a, b) == 12.0
    assert frechet_distance_from_moments(*moments(a), *moments(b)) == 12.0


def test_large_negative_values_are_an_error():
    not_psd = torch.diag(torch.tensor([4.0, -4.0]))
    with pytest.raises(ArithmeticError, match="negative beyond rounding"):
        frechet_distance_from_moments(torch.zeros(2), not_psd, torch.zeros(2), torch.eye(2))


def test_bad_input_is_named():
    a, b = two_sets()
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(a, b.clone().index_fill_(0, torch.tensor(3), torch.nan))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance_from_moments(torch.zeros(2), torch.eye(2) * torch.inf, *moments(a[:, :2]))
    with pytest.raises(ValueError, match="n >= 2"):
        frechet_distance(a[:1], b)
    with pytest.raises(ValueError, match="reference of 5"):
        frechet_distance(a, b[:, :5])


def test_thread_count_is_restored_after_an_error():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        with pytest.raises(ZeroDivisionError), one_thread():
            _ = 1 / 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
