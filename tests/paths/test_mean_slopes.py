"""Slopes of alpha and sigma over gaps, against differences in 60 decimal digits."""

from decimal import Decimal, localcontext

import pytest
import torch

from flowexp.objectives.flow_map import JVP
from flowexp.paths import DiscreteVP
from tests.paths.schedules import SCHEDULES

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")


def sine(x):
    """The Taylor series; x is at most pi/2."""
    term, total, k = x, x, 1
    while abs(term) > Decimal(10) ** -60:
        term *= -x * x / ((k + 1) * (k + 2))
        total, k = total + term, k + 2
    return total


def levels(schedule, t):
    """(alpha, sigma) at a decimal time, by the formulas of the schedules' docstrings."""
    name, one, half = type(schedule).__name__, Decimal(1), Decimal("0.5")
    if name == "Linear":
        floor = Decimal(schedule.sigma_min)
        return one - t, floor + (one - floor) * t
    if name == "Polynomial":
        alpha = (Decimal(schedule.n) * (one - t).ln()).exp() if t < 1 else Decimal(0)
        return alpha, one - alpha
    if name == "VE":
        return one, t
    if name == "Trigonometric":
        return sine(PI / 2 * (one - t)), sine(PI / 2 * t)
    if name == "LinearVP":
        return one - t, (t * (2 - t)).sqrt()
    if name == "Cosine":
        s = Decimal(schedule.s)
        rate = PI / 2 / (1 + s)
        alpha = sine(rate * (1 - t)) / sine(PI / 2 - rate * s)
        return alpha, (one - alpha**2).sqrt()
    if name == "DiscreteVP":
        place = t * schedule.time_steps
        k = min(int(place), schedule.time_steps - 1)
        low, high = (Decimal(float(schedule._totals[i])) for i in (k, k + 1))
        total = low + (place - k) * (high - low)
    else:
        low, high = Decimal(schedule.beta_min), Decimal(schedule.beta_max)
        total = t * (low + half * (high - low) * t)
    alpha, square = (-total / 2).exp(), (-total).exp()
    return alpha, (one - square if name == "SubVP" else (one - square).sqrt())


def reference(schedule, t, r):
    a, b = levels(schedule, Decimal(t)), levels(schedule, Decimal(r))
    gap = Decimal(t) - Decimal(r)
    return [float((x - y) / gap) for x, y in zip(a, b, strict=True)]


def knots_below(schedule, t, r):
    return int(schedule.time_steps * t) - int(schedule.time_steps * r)


@pytest.mark.parametrize("name", SCHEDULES)
def test_slopes_do_not_cancel(name):
    schedule = SCHEDULES[name]
    top = schedule.t_max
    pairs = []
    for t in (top, 0.9 * top, 0.3, 0.0253, 2e-3, 1e-5 + schedule.t_min):
        gaps = [10.0**-k for k in range(13)] + [0.02 * t, 0.005 * t, t]
        pairs += [(t, max(t - gap, 0.0)) for gap in gaps if t - max(t - gap, 0.0) > 0.0]
    if isinstance(schedule, DiscreteVP):
        # Shorter gaps over a knot are another matter.
        pairs = [(t, r) for t, r in pairs if t - r > 1e-5 or knots_below(schedule, t, r) == 0]
    t, r = torch.tensor(pairs, dtype=torch.float64).T
    found = schedule.mean_slopes(t, r)
    with localcontext(prec=60):
        exact = torch.tensor([reference(schedule, *pair) for pair in pairs], dtype=torch.float64).T
    for slope, expected in zip(found, exact, strict=True):
        torch.testing.assert_close(slope, expected, rtol=2e-10, atol=2e-10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_a_gap_they_are_the_derivatives(name):
    schedule = SCHEDULES[name]
    for t in (torch.tensor([schedule.t_min, 0.3, schedule.t_max]), torch.tensor(0.7)):
        times = t.to(torch.float64)
        c, slopes = schedule.coefficients(times), schedule.mean_slopes(times, times)
        torch.testing.assert_close(slopes, (c.d_alpha, c.d_sigma), rtol=1e-12, atol=1e-14)
        assert slopes[0].shape == t.shape


def test_over_a_knot_of_a_table_they_lie_between_the_slopes_of_its_sides():
    schedule = DiscreteVP(p=1.0, time_steps=40, beta_start=0.01, beta_end=0.3)
    knot = torch.tensor(0.5, dtype=torch.float64)
    for gap in (1e-3, 1e-7, 1e-11):
        t, r = knot + 0.25 * gap, knot - 0.75 * gap
        sides = zip(*(schedule.mean_slopes(x, x) for x in (t, r)), strict=True)
        for slope, (after, before) in zip(schedule.mean_slopes(t, r), sides, strict=True):
            assert min(before, after) < slope < max(before, after)


@pytest.mark.parametrize("name", SCHEDULES)
def test_they_have_a_derivative_in_t_where_the_leap_ends_in_the_data(name):
    """Consistency models differentiate along t with r = 0 fixed, where sigma' may be infinite."""
    schedule = SCHEDULES[name]
    t, r = torch.tensor([0.3, 0.8], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    direction = (torch.ones_like(t), torch.zeros_like(r))
    slopes, changes = JVP().along(
        lambda *times: torch.stack(schedule.mean_slopes(*times)), (t, r), direction
    )
    c = schedule.coefficients(t)
    expected = (torch.stack([c.d_alpha, c.d_sigma]) - slopes) / t
    torch.testing.assert_close(changes, expected, rtol=1e-9, atol=1e-12)
