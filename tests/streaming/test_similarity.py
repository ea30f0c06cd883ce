"""The stochastic similarity filter."""

import pytest
import torch

from flowexp.streaming import SimilarityFilter, skip_probability

RNG = torch.Generator().manual_seed(0)
A = torch.rand(1, 4, 4, generator=RNG) * 2.0 - 1.0
B = torch.rand(1, 4, 4, generator=RNG) * 2.0 - 1.0


def near(amount):
    return A + amount * B


def test_probability():
    assert skip_probability(A, A, threshold=0.9) == pytest.approx(1.0, abs=1e-12)
    assert skip_probability(-A, A, threshold=0.9) == 0.0
    assert skip_probability(A, 3.0 * A, threshold=0.9) == pytest.approx(1.0, abs=1e-12)
    assert skip_probability(A, A, threshold=1.0) == 0.0
    assert skip_probability(torch.zeros_like(A), A, threshold=0.5) == 0.0
    x = near(0.3)
    cosine = float(torch.nn.functional.cosine_similarity(A.flatten(), x.flatten(), dim=0))
    expected = (cosine - 0.5) / 0.5
    assert 0.0 < expected < 1.0
    assert skip_probability(x, A, threshold=0.5) == pytest.approx(expected, abs=1e-6)


@pytest.mark.statistical
def test_frames_are_skipped_with_that_probability():
    """1e5 draws; a right filter misses four standard deviations once in 16,000 tests."""
    x = near(0.3)
    p = skip_probability(x, A, threshold=0.5)
    draws = torch.rand(100_000, generator=torch.Generator().manual_seed(1)).tolist()
    skipped = 0
    for u in draws:
        decide = SimilarityFilter(threshold=0.5)
        decide.skips(A, u=0.0)
        skipped += decide.skips(x, u=u)
    spread = (p * (1.0 - p) / len(draws)) ** 0.5
    assert abs(skipped / len(draws) - p) < 4.0 * spread


@pytest.mark.parametrize("max_skip", [0, 1, 3])
def test_a_still_picture_is_processed_every_so_often(max_skip):
    decide = SimilarityFilter(threshold=0.9, max_skip=max_skip)
    found = [decide.skips(A, u=0.5) for _ in range(4 * (max_skip + 2))]
    assert found == ([False] + [True] * (max_skip + 1)) * 4


def test_the_reference_is_the_last_processed_frame():
    decide = SimilarityFilter(threshold=0.9)
    assert not decide.skips(A, u=0.99)
    # Slow drift: each frame resembles the one before, and in the end not the reference.
    drift = [near(0.05 * k) for k in range(1, 40)]
    found = [decide.skips(x, u=0.5) for x in drift]
    first = found.index(False)
    assert 0 < first < 12
    assert found[first + 1]


def test_the_count_goes_on_over_processed_frames():
    decide = SimilarityFilter(threshold=0.9, max_skip=1)
    for x, skipped in ((A, False), (A, True), (-A, False), (-A, True), (-A, False), (-A, True)):
        assert decide.skips(x, u=0.5) is skipped


def test_reset_and_copies():
    decide, x = SimilarityFilter(threshold=0.9), A.clone()
    decide.skips(x, u=0.0)
    x.neg_()
    assert not decide.skips(x, u=0.5)
    decide.skips(x, u=0.5)
    decide.reset()
    assert decide.skipped == 0
    assert not decide.skips(x, u=0.0)
    with pytest.raises(ValueError, match="max_skip is -1"):
        SimilarityFilter(max_skip=-1)
