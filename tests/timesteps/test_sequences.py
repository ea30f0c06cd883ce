"""Times of sequences: another law's, sorted from the noisiest to the cleanest."""

import math

import pytest
import torch

from flowexp.paths import VE, Linear
from flowexp.seeding import generator
from flowexp.timesteps import Descending, LogNormal, Stratified, Uniform


def times(law, n, seed=0, schedule=None):
    schedule = Linear() if schedule is None else schedule
    return law.sample(n, schedule=schedule, rng=generator(seed, "time"))


@pytest.mark.parametrize("length", [1, 2, 5])
def test_times_fall_within_each_sequence_and_are_those_of_the_law(length):
    found = times(Descending(Uniform(), length=length), 10 * length)
    drawn = times(Uniform(), 10 * length)
    rows, own = found.reshape(10, length), drawn.reshape(10, length)
    assert (rows.diff(dim=1) <= 0).all()
    assert torch.equal(rows.sort(dim=1).values, own.sort(dim=1).values)
    assert found.dtype == torch.float64


def test_a_last_sequence_may_be_shorter():
    found, drawn = times(Descending(Uniform(), length=4), 10), times(Uniform(), 10)
    assert torch.equal(found[8:], drawn[8:].sort(descending=True).values)
    assert torch.equal(found[:4], drawn[:4].sort(descending=True).values)
    assert times(Descending(Uniform(), length=4), 0).shape == (0,)


def test_the_place_of_a_row_has_its_beta_distribution_and_all_rows_the_law():
    # Means of 20,000 sequences; 5 + 1 numbers at 4.5 standard deviations: 1 false alarm in 24,000.
    count, length = 20_000, 5
    rows = times(Descending(Uniform(), length=length), count * length).reshape(count, length)
    for k in range(1, length + 1):
        a, b = length - k + 1, k
        variance = a * b / ((a + b) ** 2 * (a + b + 1))
        error = abs(float(rows[:, k - 1].mean()) - a / (a + b))
        assert error < 4.5 * math.sqrt(variance / count)
    assert abs(float(rows.mean()) - 0.5) < 4.5 * math.sqrt(1 / 12 / rows.numel())


def test_stratified_times_keep_one_draw_per_stratum_of_the_whole_batch():
    found = times(Descending(Stratified(Uniform()), length=5), 40)
    assert torch.equal((found.sort().values * 40).floor(), torch.arange(40, dtype=torch.float64))
    assert (found.reshape(8, 5).diff(dim=1) <= 0).all()


def test_laws_of_noise_levels_give_times_of_the_path():
    for schedule in (Linear(), VE()):
        found = times(Descending(LogNormal(), length=3), 300, schedule=schedule)
        drawn = times(LogNormal(), 300, schedule=schedule)
        assert torch.equal(found.sort().values, drawn.sort().values)
        assert (found.reshape(100, 3).diff(dim=1) <= 0).all()


def test_it_takes_over_what_its_law_states():
    law = Descending(Uniform(low=0.1, high=0.6), length=5)
    assert law.support == (0.1, 0.6)
    assert law.sequence == 5
    assert law.columns == ("t",)
    assert law.at(1000) is law


def test_impossible_arguments_are_named():
    with pytest.raises(ValueError, match="length is 0"):
        Descending(Uniform(), length=0)
