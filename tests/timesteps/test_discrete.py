"""Laws of finitely many times."""

import pytest
import torch

from flowexp.paths import VE, Linear
from flowexp.seeding import generator
from flowexp.timesteps import Fixed, UniformGrid, check_compatible

F64 = torch.float64


def test_fixed_draws_its_time():
    distribution = Fixed(value=0.999)
    t = distribution.sample(5, schedule=Linear(), rng=generator(0, "time"))
    assert t.tolist() == [0.999] * 5
    assert t.dtype == F64
    around = torch.tensor([0.998, 0.999, 1.0], dtype=F64)
    assert distribution.cdf(around).tolist() == [0.0, 1.0, 1.0]
    assert distribution.pdf(around).tolist() == [0.0, 1.0, 0.0]


def test_grid_draws_the_times_of_its_steps_with_equal_odds():
    """Counts of 40,000 draws: 5 standard deviations, a false alarm in 400,000 seeds."""
    distribution = UniformGrid(points=4)
    t = distribution.sample(40_000, schedule=Linear(), rng=generator(0, "time"))
    times, counts = t.unique(return_counts=True)
    assert times.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert (counts - 10_000).abs().max() < 5 * (40_000 * 0.25 * 0.75) ** 0.5


def test_grid_functions_agree():
    distribution = UniformGrid(points=3, low=0.1, high=0.7)
    times = torch.tensor([0.3, 0.5, 0.7], dtype=F64)
    torch.testing.assert_close(distribution.quantile(torch.tensor([1e-9, 0.5, 1.0])), times)
    exact = distribution.quantile(torch.arange(1, 4, dtype=F64) / 3)
    torch.testing.assert_close(distribution.cdf(exact), torch.arange(1, 4, dtype=F64) / 3)
    torch.testing.assert_close(distribution.cdf(exact - 1e-9), torch.arange(0, 3, dtype=F64) / 3)
    torch.testing.assert_close(distribution.pdf(exact), torch.full((3,), 1 / 3, dtype=F64))
    assert distribution.pdf(exact - 1e-9).tolist() == [0.0, 0.0, 0.0]


def test_one_point_is_the_end():
    assert UniformGrid(points=1, high=80.0).quantile(torch.rand(9)).unique().tolist() == [80.0]


def test_they_suit_paths_that_reach_them():
    check_compatible(Fixed(value=1.0), Linear())
    check_compatible(UniformGrid(points=2, high=80.0), VE())
    with pytest.raises(ValueError, match="Fixed"):
        check_compatible(Fixed(value=2.0), Linear())


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Fixed(value=-0.1), "value is -0.1"),
        (lambda: Fixed(value=float("inf")), "value is inf"),
        (lambda: UniformGrid(points=0), "points is 0"),
        (lambda: UniformGrid(points=2, low=1.0), "low"),
    ],
)
def test_impossible_numbers_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
