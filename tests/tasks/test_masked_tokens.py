"""Images with known tokens: shares, whole tokens, what is given."""

import pytest
import torch
from scipy import stats

from flowexp.data import DataBatch
from flowexp.seeding import generator
from flowexp.tasks import MaskedTokens

STD = 0.25


def given(count=2000, *, size=8, patch=2, seed=0, labels=None):
    x = torch.rand(count, 3, size, size, generator=generator(seed, "x")) + 0.5
    task = MaskedTokens(patch_size=patch, num_classes=0 if labels is None else 10)
    batch = DataBatch(x, labels, torch.arange(count))
    return x, task.of_data(batch, x, labels, rng=generator(seed, "conditions"))


def test_the_share_of_unknown_tokens_has_mars_law():
    """Kolmogorov-Smirnov against the truncated normal law; a false alarm in 1e-4 of the seeds."""
    shares = MaskedTokens().shares(20_000, rng=generator(0, "conditions"))
    law = stats.truncnorm((0.7 - 1.0) / STD, 0.0, loc=1.0, scale=STD)
    assert stats.kstest(shares.numpy(), law.cdf).pvalue > 1e-4
    assert shares.min() > 0.7
    assert shares.max() < 1.0


def test_whole_tokens_are_known_and_the_image_shows_nothing_else():
    x, found = given()
    mask, image = found["mask"], found["image"]
    assert set(mask.unique().tolist()) == {-1.0, 1.0}
    assert mask.shape == (2000, 1, 8, 8)
    tokens = mask[:, :, ::2, ::2]
    assert torch.equal(tokens.repeat_interleave(2, 2).repeat_interleave(2, 3), mask)
    known = (mask < 0.0).expand_as(x)
    assert torch.equal(image[known], x[known])
    assert not image[~known].any()
    unknown = (tokens > 0.0).flatten(1).sum(1)
    assert unknown.min() >= 12  # 0.7 of 16, rounded up
    assert unknown.max() == 16


def test_every_token_is_unknown_equally_often():
    """Chi-squared test over the 16 places; a false alarm in 1e-4 of the seeds."""
    _, found = given(4000)
    known = (found["mask"][:, 0, ::2, ::2] < 0.0).flatten(1).double()
    counts = known.sum(0)
    # given their number, the known places are a random subset: variance below the binomial's
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_labels_come_along_and_sampling_knows_nothing():
    labels = torch.arange(4)
    _, found = given(4, labels=labels)
    assert torch.equal(found["labels"], labels)
    task = MaskedTokens(num_classes=10)
    assert set(task.conditions([0, 1])) == {"labels"}
    assert set(MaskedTokens().conditions([0, 1])) == set()


def test_images_of_other_sizes_and_tokens_of_no_size_are_refused():
    with pytest.raises(ValueError, match="no tokens of 3 x 3"):
        given(2, patch=3)
    with pytest.raises(ValueError, match="patch_size is 0"):
        MaskedTokens(patch_size=0)
