"""Numbers as a reader wants them."""

import math

import pytest

from flowexp.tables.render.cells import cost_text, count_text, mean_text, number_text
from flowexp.tables.render.sheet import Column, Line, Sheet


@pytest.mark.parametrize(
    ("mean", "spread", "expected"),
    [
        (12.5312, 0.481, "12.53 ± 0.48 (3 seeds)"),
        (182.71, 4.2, "182.7 ± 4.2 (3 seeds)"),
        (1.97, 0.0123, "1.970 ± 0.012 (3 seeds)"),
        (128.9, 250.0, "129 ± 250 (3 seeds)"),
        (5.0, 0.0, "5 ± 0 (3 seeds)"),
        (34.0, 1.0, "34.0 ± 1.0 (3 seeds)"),
        (0.0012345, 0.5, "0.00123 ± 0.50 (3 seeds)"),
        (2e-6, 1e-7, "2e-06 ± 1e-07 (3 seeds)"),
        (math.nan, math.nan, "not finite"),
    ],
)
def test_the_mean_has_the_digits_that_its_spread_allows(mean, spread, expected):
    assert mean_text(mean, spread=spread, count=3) == expected


def test_one_value_has_no_spread_and_says_so():
    assert mean_text(1.234, spread=math.nan, count=1, of="seed range") == "1.234 (1 seed range)"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (math.inf, "not finite"), (123456.0, "123500"), (1.2e-5, "1.2e-05"), (0.0, "0")],
)
def test_numbers(value, text):
    assert number_text(value) == text


def test_counts_and_costs():
    assert (count_text(35.0), count_text(50000), count_text(104.25)) == ("35", "50,000", "104.2")
    assert count_text(math.nan) == "-"
    assert cost_text(61.5, device="cpu") == "62 s, cpu"
    assert cost_text(0.94, device="cpu") == "0.94 s, cpu"
    assert cost_text(8120.0, device="H200") == "8,120 s (2.3 h), H200"
    assert cost_text(math.nan, device="cpu") == "cpu"


def test_a_sheet_refuses_lines_of_another_width():
    with pytest.raises(ValueError, match="1 cells in 2 columns"):
        Sheet(
            name="x",
            title="x",
            columns=(Column(title="a"), Column(title="b")),
            lines=(Line(cells=("1",)),),
        )
