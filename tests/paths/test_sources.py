"""The source laws: Student-t against its closed forms, and its limits.

Each Kolmogorov-Smirnov test compares 20,000 draws (fixed seed) with the exact law and fails at
p < 1e-3, which a correct sampler does once in a thousand seeds.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from flowexp.paths import Gaussian, Path, StudentT
from flowexp.paths.interpolants import Linear
from flowexp.seeding import generator

DRAWS = 20_000


def draw(source, shape, seed=0, **options):
    return source.sample(shape, rng=generator(seed, "source"), **options)


def sums(D, N):
    """Mean square and first coordinate of DRAWS samples, in chunks that fit in memory."""
    squares, coordinates = [], []
    source = StudentT(D)
    chunk = max(1, 2_000_000 // N)
    for i in range(math.ceil(DRAWS / chunk)):
        n = min(chunk, DRAWS - i * chunk)
        e = source.sample((n, N), rng=generator(i, "law"), dtype=torch.float32).double()
        squares.append(e.square().mean(1))
        coordinates.append(e[:, 0])
    return torch.cat(squares).numpy(), torch.cat(coordinates).numpy()


@pytest.mark.statistical
@pytest.mark.parametrize(("N", "D"), [(3, 1), (48, 2), (192, 64), (3072, 128), (3072, 2048)])
def test_student_t_law(N, D):
    squares, coordinates = sums(D, N)
    assert stats.kstest(squares, stats.f(N, D).cdf).pvalue > 1e-3
    assert stats.kstest(coordinates, stats.t(D).cdf).pvalue > 1e-3
    if D > 4:
        # E|e|^2 / N = D / (D - 2); four standard errors of the F law: false alarm 6e-5
        error = stats.f(N, D).std() / math.sqrt(DRAWS)
        assert abs(squares.mean() - D / (D - 2)) < 4 * error


@pytest.mark.statistical
def test_student_t_with_real_degrees_of_freedom():
    e = draw(StudentT(2.5), (DRAWS, 4), dtype=torch.float64)
    assert stats.kstest(e[:, 1].numpy(), stats.t(2.5).cdf).pvalue > 1e-3


@pytest.mark.statistical
def test_huge_dof_is_normal():
    e = draw(StudentT(1e7), (DRAWS, 2))
    assert stats.kstest(e[:, 0].numpy(), stats.norm.cdf).pvalue > 1e-3


def test_kernel_of_the_paper_is_the_student_t_density_up_to_a_constant():
    N, D, sigma = 5, 3.0, 0.7
    x = np.random.default_rng(0).normal(size=(50, N)) * 2.0
    r2 = D * sigma**2
    kernel = -0.5 * (N + D) * np.log((x**2).sum(1) + r2)
    exact = stats.multivariate_t(shape=sigma**2 * np.eye(N), df=D).logpdf(x)
    assert np.ptp(kernel - exact) < 1e-10


def test_infinite_dof_is_gaussian_bit_for_bit():
    shape = (7, 3, 4, 4)
    gaussian = draw(Gaussian(), shape)
    assert torch.equal(draw(StudentT(math.inf), shape), gaussian)
    assert torch.equal(draw(Path(Linear(), D=math.inf).source, shape), gaussian)
    assert StudentT(math.inf).is_gaussian
    assert not StudentT(2048).is_gaussian


def test_student_t_shares_the_direction_of_the_gaussian_draw():
    shape = (5, 6)
    t, g = draw(StudentT(3.0), shape), draw(Gaussian(), shape)
    ratio = t / g
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-5, atol=0)
    assert ratio[:, 0].unique().numel() == shape[0]


def test_draws_keep_shape_and_dtype_and_repeat():
    a = draw(StudentT(4), (2, 3), dtype=torch.float64)
    assert a.dtype == torch.float64
    assert a.shape == (2, 3)
    assert torch.equal(a, draw(StudentT(4), (2, 3), dtype=torch.float64))
    assert not torch.equal(a, draw(StudentT(4), (2, 3), seed=1, dtype=torch.float64))


@pytest.mark.parametrize("D", [0, -1.0, math.nan, -math.inf, "128"])
def test_impossible_dof_is_named(D):
    with pytest.raises(ValueError, match="D is"):
        Path(Linear(), D=D)
    with pytest.raises(ValueError, match="D is"):
        StudentT(D)


def test_dof_and_source_exclude_each_other():
    with pytest.raises(ValueError, match="not both"):
        Path(Linear(), D=3, source=Gaussian())
    assert Path(Linear(), source=StudentT(3)).D == 3.0
    assert Path(Linear(), D=128).D == 128.0
    assert Path(Linear()).D == math.inf
