"""Power-function averages: widths, and averages made afterwards from stored ones."""

import numpy as np
import pytest

from flowexp.power_averages import gamma_of_std, post_hoc_shares, std_of_gamma
from flowexp.training import PowerEMA


@pytest.mark.parametrize("std", [0.01, 0.05, 0.1, 0.2, 0.28, 12**-0.5])
def test_width_and_exponent_are_inverse(std):
    assert std_of_gamma(gamma_of_std(std)) == pytest.approx(std, rel=1e-12)


def test_published_exponents():
    assert gamma_of_std(0.05) == pytest.approx(16.97, abs=0.005)
    assert gamma_of_std(0.10) == pytest.approx(6.94, abs=0.005)
    assert gamma_of_std(12**-0.5) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("std", [0.0, -0.1, 0.289, 0.5])
def test_widths_out_of_range_are_refused(std):
    with pytest.raises(ValueError, match=r"allowed: \(0, 0.2886"):
        gamma_of_std(std)


def test_the_first_step_forgets_the_initial_weights():
    assert PowerEMA(std=0.05).beta(0, 512) == 0.0


STEPS = 4096


def averages(path, std):
    """The average of a path after every step."""
    found, average, ema = [], np.zeros(path.shape[1]), PowerEMA(std=std)
    for step, weights in enumerate(path):
        beta = ema.beta(step, 1)
        average = beta * average + (1.0 - beta) * weights
        found.append(average)
    return np.stack(found)


@pytest.fixture(scope="module")
def walk():
    return np.cumsum(np.random.default_rng(0).standard_normal((STEPS, 16)), axis=0)


# bounds: twice what was computed for such a walk
@pytest.mark.parametrize(("std", "error"), [(0.05, 1e-9), (0.15, 3e-5), (0.2, 8e-4), (0.03, 1e-3)])
def test_an_average_of_another_width_is_made_from_32_snapshots_of_two(walk, std, error):
    times = [STEPS // 32 * (n + 1) for n in range(32)]
    stored = {s: averages(walk, s)[[t - 1 for t in times]] for s in (0.05, 0.1)}
    shares = post_hoc_shares(
        [*times, *times], [0.05] * 32 + [0.1] * 32, wanted_times=[STEPS], wanted_stds=[std]
    )
    assert shares.sum() == pytest.approx(1.0, rel=1e-12)
    found = shares[:, 0] @ np.concatenate([stored[0.05], stored[0.1]])
    expected = averages(walk, std)[-1]
    assert np.linalg.norm(found - expected) < error * np.linalg.norm(expected)


def test_a_stored_average_is_itself_and_units_of_time_do_not_matter():
    times, stds = [3.0, 5.0, 8.0], [0.1, 0.05, 0.1]
    shares = post_hoc_shares(times, stds, wanted_times=[5.0], wanted_stds=[0.05])
    np.testing.assert_allclose(shares[:, 0], [0.0, 1.0, 0.0], atol=1e-12)
    wanted = post_hoc_shares(times, stds, wanted_times=[7.0], wanted_stds=[0.08])
    scaled = post_hoc_shares([1e6 * t for t in times], stds, wanted_times=[7e6], wanted_stds=[0.08])
    np.testing.assert_allclose(scaled, wanted, rtol=1e-9)


@pytest.mark.parametrize(
    ("times", "stds", "message"),
    [
        ([], [], "at least one stored average"),
        ([0.0], [0.1], "times > 0"),
        ([1.0, 1.0], [0.1, 0.1], "same time and width"),
        ([1.0], [], "a time and a width"),
    ],
)
def test_bad_snapshots_are_refused(times, stds, message):
    with pytest.raises(ValueError, match=message):
        post_hoc_shares(times, stds, wanted_times=[1.0], wanted_stds=[0.1])
