"""Curves and charts show what was logged."""

import math
import re

import pytest

from flowexp.report.curves import Curve, chart, curve_keys, curve_of, smoothed, thinned
from tests.report.runs import rows
from tests.tables.render.test_over_nfe import places

RAMP = Curve(label="ramp", points=tuple((float(i), 2.0 * i) for i in range(1000)))


def test_keys_start_with_the_loss_and_leave_out_what_is_no_curve():
    found = curve_keys([{"step": 1, "kimg": 1.0, "train/x": 1.0, "note": "a"}, *rows(2)])
    assert found == ["train/loss", "train/learning_rate", "time/images_per_second", "train/x"]


def test_values_that_are_not_finite_are_left_out():
    logged = [
        {"kimg": 1.0, "train/loss": None},
        {"kimg": 2.0, "train/loss": 3.0},
        {"kimg": 3.0},
        {"kimg": 4.0, "train/loss": math.inf},
    ]
    assert curve_of(logged, "train/loss", label="x").points == ((2.0, 3.0),)


def test_thinning_keeps_the_mean_and_the_order():
    few = thinned(RAMP, most=50)
    assert len(few.points) == 50
    assert few.points == tuple(sorted(few.points))
    assert math.fsum(y for _, y in few.points) / 50 == pytest.approx(999.0)
    assert thinned(few, most=50) is few


def test_smoothing_is_the_mean_of_the_points_behind():
    mean, width = smoothed(RAMP)
    assert width == 40
    assert mean.points[500][1] == pytest.approx(2.0 * (500 - (width - 1) / 2))
    assert mean.points[0] == RAMP.points[0]
    short = Curve(label="s", points=RAMP.points[:10])
    assert smoothed(short) == (short, 1)


def test_a_rising_line_rises_to_the_right_within_the_picture():
    drawn = chart([Curve(label="r", points=((0.0, 1.0), (5.0, 2.0), (10.0, 3.0)))], title="t")
    (found,) = places(drawn.svg())
    xs, ys = zip(*found, strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[0] > ys[1] > ys[2]
    assert min(xs) >= 0
    assert max(xs) <= 380
    assert min(ys) >= 0
    assert max(ys) <= 206


def test_a_wide_positive_range_is_logarithmic_and_a_schedule_is_not():
    curve = Curve(label="r", points=((0.0, 1.0), (1.0, 10.0), (2.0, 100.0)))
    drawn = chart([curve], title="t")
    (line,) = places(drawn.svg())
    ys = [y for _, y in line]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)
    assert "Logarithmic scale" in drawn.described
    assert "Linear scale" in chart([curve], title="t", noisy=False).described


def test_a_constant_and_a_negative_curve_can_be_drawn():
    for points in (((0.0, 2.0), (1.0, 2.0)), ((0.0, -3.0), (1.0, 0.0)), ((0.0, 0.0), (1.0, 0.0))):
        assert "nan" not in chart([Curve(label="c", points=points)], title="t").svg()


def test_a_curve_of_one_point_is_no_chart():
    assert chart([Curve(label="c", points=((0.0, 1.0),))], title="t") is None


def test_the_chart_says_in_words_what_it_shows():
    drawn = chart([curve_of(rows(), "train/loss", label="loss")], title="Training <loss>")
    assert 'role="img"' in drawn.svg()
    assert drawn.title == "Training <loss>"
    assert '<title id="title">Training &lt;loss&gt;</title>' in drawn.svg()
    assert "10 at 0.2 kimg, 0.125 at 16 kimg" in drawn.described
    assert "running mean of 3 logged values" in drawn.described


def test_several_curves_have_a_legend_and_colours_of_their_own():
    two = [Curve(label=name, points=((0.0, 1.0), (1.0, 2.0))) for name in "ab"]
    drawn = chart(two, title="t").svg()
    assert re.findall(r"<text[^>]*>([ab])</text>", drawn) == ["a", "b"]
    assert "stroke: var(--s1)" in drawn
    assert "stroke: var(--s2)" in drawn
