import math

import pytest

from flowexp.evaluation import Summary, seed_ranges


def test_ranges_are_disjoint_and_consecutive():
    ranges = seed_ranges(5, repeats=3)
    assert [seed for part in ranges for seed in part] == list(range(15))
    assert [len(part) for part in ranges] == [5, 5, 5]
    assert seed_ranges(2, repeats=2, first=50) == [[50, 51], [52, 53]]


@pytest.mark.parametrize(("count", "repeats"), [(0, 1), (1, 0)])
def test_nothing_to_range_over(count, repeats):
    with pytest.raises(ValueError, match=f"repeats={repeats}"):
        seed_ranges(count, repeats=repeats)


def test_closed_form():
    summary = Summary("FD", "eval/fd", (1.0, 3.0, 2.0))
    assert summary.mean == 2.0
    assert summary.spread == 1.0
    assert summary.minimum == 1.0
    assert math.isnan(Summary("FD", "eval/fd", (1.0,)).spread)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_have_no_spread(value):
    assert math.isnan(Summary("PSNR", "eval/psnr", (1.0, value)).spread)
