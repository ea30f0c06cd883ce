"""The verdict against scipy's own test, on cases whose answer is known."""

import math

import numpy as np
import pytest
from scipy import stats

from flowexp.tables.claims import verdict


def test_the_numbers_are_those_of_scipys_paired_test():
    rng = np.random.default_rng(0)
    first, last = rng.normal(1.0, 0.3, 5), rng.normal(0.7, 0.3, 5)
    for direction, alternative in (("lower", "greater"), ("higher", "less")):
        wanted = stats.ttest_rel(first, last, alternative=alternative)
        found = verdict([first.tolist(), last.tolist()], direction=direction)
        sign = 1.0 if direction == "lower" else -1.0
        assert found.statistic == pytest.approx(sign * wanted.statistic, rel=1e-12)
        assert found.p_value == pytest.approx(wanted.pvalue, rel=1e-12)


@pytest.mark.parametrize(
    ("first", "last", "direction", "word"),
    [
        ([3.0, 3.1, 2.9], [2.0, 2.2, 1.9], "lower", "holds"),
        ([3.0, 3.1, 2.9], [2.0, 2.2, 1.9], "higher", "does not hold"),
        ([2.0, 2.2, 1.9], [3.0, 3.1, 2.9], "lower", "does not hold"),
        ([2.0, 3.0, 4.0], [3.0, 2.0, 4.1], "lower", "undecided"),
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], "lower", "undecided"),
        ([2.0, 2.0, 2.0], [1.0, 1.0, 1.0], "lower", "holds"),
        ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], "lower", "does not hold"),
        ([2.0, math.nan, 2.0], [1.0, 1.0, 1.0], "lower", "undecided"),
        ([2.0], [1.0], "lower", "undecided"),
    ],
)
def test_the_verdict(first, last, direction, word):
    assert verdict([first, last], direction=direction).word == word


def test_the_last_arm_must_beat_every_other_one():
    last, worse, alike = [1.0, 1.1, 0.9], [2.0, 2.2, 1.9], [1.05, 1.0, 0.95]
    assert verdict([worse, last], direction="lower").word == "holds"
    assert verdict([worse, alike, last], direction="lower").word == "undecided"


@pytest.mark.statistical
def test_without_an_effect_one_in_twenty_is_declared_to_hold():
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(2000, 2, 3))
    words = [verdict(arms.tolist(), direction="lower").word for arms in draws]
    # 2000 draws: four standard deviations are 0.02
    assert words.count("holds") / 2000 == pytest.approx(0.05, abs=0.02)
    assert words.count("does not hold") / 2000 == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("arms", [[[1.0]], [[1.0, 2.0], [1.0]]])
def test_arms_that_cannot_be_compared(arms):
    with pytest.raises(ValueError, match="arms of lengths"):
        verdict(arms, direction="lower")
