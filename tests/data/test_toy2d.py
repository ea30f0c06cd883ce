"""Point sets: known moments, known support, labels that name the mode."""

import math

import numpy as np
import pytest

from flowexp.data.toy2d import Checkerboard, EightGaussians, SwissRoll, TwoMoons
from flowexp.errors import UsageError

LAWS = [
    (EightGaussians, 8, 0.06),
    (TwoMoons, 2, 0.05),
    (Checkerboard, 8, 0.0),
    (SwissRoll, 0, 0.5),
]


@pytest.mark.statistical
@pytest.mark.parametrize(("law", "classes", "noise"), LAWS)
def test_mean_zero_and_deviation_one_half(law, classes, noise):
    # 50,000 points: the mean's standard error is 0.0022, that of the deviation below 0.0016
    # (bounded laws); both bounds are over 4.5 of them, 4 numbers: false alarm below 1 in 10^4.
    points = law(num_classes=classes, noise=noise).train().images.astype(np.float64)
    assert points.shape == (50_000, 2)
    assert np.abs(points.mean(0)).max() < 0.0105
    assert np.abs(points.std(0) - 0.5).max() < 0.0075


@pytest.mark.parametrize(("law", "classes", "noise"), LAWS)
def test_same_seed_same_points_and_splits_differ(law, classes, noise):
    def make(**changes):
        return law(num_classes=classes, noise=noise, size=64, heldout_size=64, **changes)

    assert make().train().fingerprint == make().train().fingerprint
    assert make().train().fingerprint != make(data_seed=1).train().fingerprint
    assert make().train().fingerprint != make().heldout().fingerprint
    make().locate()
    assert make().shape == (2,)


@pytest.mark.statistical
@pytest.mark.parametrize(("law", "classes", "noise"), [c for c in LAWS if c[1]])
def test_modes_are_equally_likely(law, classes, noise):
    # Chi-square of up to 8 counts: 5 standard errors each, false alarm below 1 in 10^5.
    counts = np.bincount(law(num_classes=classes, noise=noise).train().labels, minlength=classes)
    assert len(counts) == classes
    p = 1 / classes
    assert np.abs(counts - 50_000 * p).max() < 5 * math.sqrt(50_000 * p * (1 - p))


def test_eight_gaussians_surround_their_centres():
    noise = 0.06
    data = EightGaussians(num_classes=8, noise=noise, size=20_000).train()
    scale = 0.5 / math.sqrt(0.5 + noise**2)
    angle = data.labels * math.pi / 4
    centres = scale * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    spread = (data.images - centres).std(0)
    np.testing.assert_allclose(spread, noise * scale, rtol=0.04)


def test_checkerboard_fills_its_squares_and_no_other():
    data = Checkerboard(num_classes=8).train()
    board = data.images.astype(np.float64) * math.sqrt(16 / 12) / 0.5 + 2.0
    assert board.min() > -1e-6
    assert board.max() < 4 + 1e-6
    inside = np.clip(board, 1e-6, 4 - 1e-6)
    column, row = np.floor(inside).astype(int).T
    edge = np.abs(inside - np.round(inside)).min(axis=1) < 1e-5
    assert (((column + row) % 2 == 0) | edge).all()
    assert (data.labels[~edge] == (2 * row + column // 2)[~edge]).all()


def test_moons_without_noise_lie_on_half_circles():
    data = TwoMoons(num_classes=2, noise=0.0).train()
    _, variance = TwoMoons(num_classes=2)._moments()
    raw = data.images * np.sqrt(variance) / 0.5 + np.array([0.5, 0.25])
    upper, lower = raw[data.labels == 0], raw[data.labels == 1]
    np.testing.assert_allclose(np.hypot(*upper.T), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.hypot(*(lower - [1.0, 0.5]).T), 1.0, atol=1e-5)
    assert upper[:, 1].min() > -1e-5
    assert lower[:, 1].max() < 0.5 + 1e-5


def test_contradicting_declarations_are_refused():
    with pytest.raises(UsageError, match=r"dataset\.num_classes: eight_gaussians .* 8, but 3"):
        EightGaussians(num_classes=3)
    with pytest.raises(UsageError, match=r"dataset\.dim"):
        TwoMoons(num_classes=2, dim=3)
    with pytest.raises(UsageError, match=r"dataset\.hflip"):
        TwoMoons(num_classes=2, hflip=True)
    with pytest.raises(ValueError, match="noise"):
        TwoMoons(num_classes=2, noise=-1.0)
    with pytest.raises(ValueError, match="heldout_size"):
        TwoMoons(num_classes=2, heldout_size=0)
