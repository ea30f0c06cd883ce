"""Stratified draws: one per stratum, in random order, each following the distribution."""

import pytest
import torch

from flowexp.paths import Linear
from flowexp.seeding import generator
from flowexp.timesteps import LogitNormal, Stratified, Uniform


@pytest.mark.parametrize("n", [1, 2, 7, 256])
def test_one_draw_per_stratum(n):
    distribution = Stratified(LogitNormal())
    t = distribution.sample(n, schedule=Linear(), rng=generator(0, "time"))
    stratum = (distribution.cdf(t) * n).floor().long()
    assert sorted(stratum.tolist()) == list(range(n))


@pytest.mark.statistical
def test_first_row_follows_the_distribution_and_owns_no_stratum():
    """512 batches of 16: the first row visits all strata (false alarm 16 (15/16)^512 < 1e-13)."""
    distribution = Stratified(Uniform())
    first = torch.stack(
        [
            distribution.sample(16, schedule=Linear(), rng=generator(i, "time"))[0]
            for i in range(512)
        ]
    )
    assert len((first * 16).floor().unique()) == 16


def test_strata_lower_the_variance_of_a_batch_mean():
    plain, strata = Uniform(), Stratified(Uniform())

    def spread(distribution):
        means = [
            distribution.sample(32, schedule=Linear(), rng=generator(i, "t")).mean()
            for i in range(50)
        ]
        return torch.stack(means).var()

    assert spread(strata) < 0.05 * spread(plain)
