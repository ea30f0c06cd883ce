"""Speculative decoding: exact laws, acceptance by the overlap of densities, rounds, refusals."""

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats

from flowexp.errors import UsageError
from flowexp.guidance import ClassifierFree
from flowexp.paths import VP, Path
from flowexp.samplers import Aligned, ExactGaussian, MaskedAutoregressive, Speculative
from flowexp.seeding import SampleNoise
from tests.samplers.closed_forms import MixtureModel
from tests.samplers.token_models import (
    T_END,
    BatchNoise,
    constant,
    latents,
    model,
    network,
    steps,
    trained_like,
)

FALSE_ALARM = 1e-4
ACCEPTED, JUDGED = "accepted share of drafted tokens", "accepted share of judged tokens"


def speculative(by, *, count=1, t_end=T_END, criterion=None, **options):
    rule = criterion or ExactGaussian()
    chain = steps(count, t_end=t_end)
    return Speculative(model=by, tokens=chain, criterion=rule, prefill=0.0, **options)


def overlap(distance):
    """``int min(p, q)`` of normal laws with equal covariance, this many deviations apart."""
    return 2.0 * stats.norm.cdf(-distance / 2.0)


def distance_of_trajectories(gap, count, t_end=T_END):
    """How far apart the trajectories of two constant predictions are, in deviations of a step."""
    chain, times = steps(count, t_end=t_end), torch.linspace(1.0, t_end, count + 1).tolist()
    total = 0.0
    for a, b in pairwise(times):
        before, after = (1.0 - a, a), (1.0 - b, b)
        zero = torch.zeros(1, 1, dtype=torch.float64)
        ends = [
            chain.mean(zero, zero + data, before=before, after=after).item() for data in (0.0, gap)
        ]
        total += ((ends[1] - ends[0]) / chain.deviation(before=before, after=after)) ** 2
    return math.sqrt(total)


@pytest.mark.parametrize(("count", "drafted"), [(1, 3), (3, 1)])
def test_tokens_in_one_dimension_have_the_targets_law(count, drafted):
    """100 thousand tokens, Kolmogorov-Smirnov; a false alarm in 1e-4 of the seeds."""
    target, draft = constant(0.5), constant(-0.2)
    sampler = speculative(draft, count=count, drafted=drafted)
    found = sampler.sample(target, latents(25_000), noise=BatchNoise())
    law = stats.norm((1.0 - T_END) * 0.5, T_END)
    assert stats.kstest(found.x.flatten().numpy(), law.cdf).pvalue > FALSE_ALARM
    # tokens are independent of each other: of four, correlations of order 1/sqrt(25000)
    correlation = torch.corrcoef(found.x.flatten(1).T) - torch.eye(4)
    assert correlation.abs().max() < 4.5 / math.sqrt(25_000)


@pytest.mark.parametrize("count", [1, 3])
def test_acceptance_is_the_overlap_of_the_densities(count):
    """Of the first draft in each image; the rate lies within 4 of its standard deviations."""
    target, draft = constant(0.5), constant(-0.2)
    found = speculative(draft, count=count, drafted=1).sample(
        target, latents(25_000), noise=BatchNoise()
    )
    expected = overlap(distance_of_trajectories(0.7, count))
    # 4 tokens: rounds of one draft and one more token, or a rejection
    assert 0.2 < expected < 0.8
    images = len(found.x)
    proposals = found.facts["proposals"].sum()
    judged = found.facts["draft passes"].sum()
    accepted = (found.facts[ACCEPTED] * found.facts["draft passes"]).sum()
    rate = float(accepted / judged)
    assert abs(rate - expected) < 4.0 * math.sqrt(expected * (1.0 - expected) / float(judged))
    # a rejected token takes 1/Z proposals on average: geometric, of variance (1 - Z)/Z^2
    rejected, z = float(judged - accepted), 1.0 - expected
    spread = math.sqrt((1.0 - z) / z**2 / rejected)
    assert abs(float(proposals) / rejected - 1.0 / z) < 4.0 * spread
    assert images == 25_000


def test_tokens_in_several_dimensions_have_the_targets_law():
    """25 thousand images of 4 tokens of 4 pixels, all 16 of them normal; Bonferroni over tests."""
    target, draft = constant(0.3, patch=2), constant(0.0, patch=2)
    sampler = speculative(draft, count=2, drafted=2)
    found = sampler.sample(target, latents(25_000, 4), noise=BatchNoise())
    z = ((found.x - (1.0 - T_END) * 0.3) / T_END).flatten(1).double()
    pixels = [stats.kstest(column.numpy(), "norm").pvalue for column in z.T]
    assert min(pixels) > FALSE_ALARM / 16
    # directions in which a wrong residual would show: the mean of a token is shifted
    squares = z.square().sum(dim=1)
    assert stats.kstest(squares.numpy(), stats.chi2(16).cdf).pvalue > FALSE_ALARM
    means = z.sum(dim=1) / 4.0
    assert stats.kstest(means.numpy(), "norm").pvalue > FALSE_ALARM


def test_a_draft_equal_to_the_target_is_always_accepted_and_gives_its_samples_bit_for_bit():
    target = trained_like()
    e, noise = latents(6), SampleNoise(range(6))
    alone = MaskedAutoregressive(tokens=steps(4)).sample(target, e, noise=noise)
    for criterion in (ExactGaussian(), Aligned()):
        sampler = speculative(trained_like(), count=4, drafted=2, criterion=criterion)
        found = sampler.sample(target, e, noise=noise)
        assert torch.equal(found.x, alone.x)
        assert found.facts[JUDGED].tolist() == [1.0] * 6
        assert found.facts["proposals"].tolist() == [0.0] * 6
        # 4 tokens by rounds of 2 drafts and the target's: 3 + 1
        assert found.nfe.tolist() == [2] * 6
        assert found.facts["draft passes"].tolist() == [2.0] * 6
    assert alone.nfe.tolist() == [4] * 6
    assert alone.facts["head evaluations"].tolist() == [16.0] * 6


def mmd_p_value(x, y, *, seed=0, permutations=200):
    """Permutation test of the maximum mean discrepancy with a Gaussian kernel."""
    both = torch.cat([x, y]).flatten(1).double()
    squares = torch.cdist(both, both).square()
    kernel = torch.exp(-squares / squares.median())
    rng = torch.Generator().manual_seed(seed)
    signs = torch.cat([torch.ones(len(x)), -torch.ones(len(y))]).double()

    def value(s):
        return float(s @ kernel @ s)

    own = value(signs)
    others = [value(signs[torch.randperm(len(signs), generator=rng)]) for _ in range(permutations)]
    return (1 + sum(other >= own for other in others)) / (permutations + 1)


def test_the_samples_of_a_whole_model_have_the_targets_law():
    """MMD between speculative samples and the target's own, on other seeds; false alarm 1 %.

    The heads depend on the known tokens, so that drafts kept after a rejection would show.
    """
    target, draft = trained_like(scale=1.5), trained_like(change=0.5, scale=1.5)
    alone = MaskedAutoregressive(tokens=steps(4)).sample(
        target, latents(1000, seed=1), noise=BatchNoise(1)
    )
    found = speculative(draft, count=4, drafted=3).sample(
        target, latents(1000, seed=2), noise=BatchNoise(2)
    )
    other = MaskedAutoregressive(tokens=steps(4)).sample(
        draft, latents(1000, seed=2), noise=BatchNoise(2)
    )
    assert 0.1 < float(found.facts[JUDGED].mean()) < 0.95
    assert mmd_p_value(found.x, alone.x) > 0.01
    assert mmd_p_value(other.x, alone.x) < 0.01  # the draft alone has another law


def test_drafts_after_a_rejection_are_discarded():
    """A draft far from the target: every draft is rejected, and a round adds one token."""
    target, draft = constant(1.0), constant(-60.0)
    found = speculative(draft, drafted=3).sample(target, latents(5), noise=SampleNoise(range(5)))
    assert found.nfe.tolist() == [4] * 5
    assert found.facts[JUDGED].tolist() == [0.0] * 5
    assert found.facts["draft passes"].tolist() == [3 + 2 + 1] * 5
    assert found.facts["images in target passes"].tolist() == [4 + 3 + 2 + 1] * 5
    assert found.facts["proposals"].tolist() == [3.0] * 5


@pytest.mark.parametrize("criterion", [ExactGaussian(), Aligned(), Aligned(share_noise=False)])
def test_a_sample_is_the_same_in_every_batch(criterion):
    target, draft = trained_like(scale=1.5), trained_like(change=0.5, scale=1.5)
    sampler = speculative(draft, count=3, drafted=2, criterion=criterion)
    e = latents(5)
    whole = sampler.sample(target, e, noise=SampleNoise(range(5)))
    parts = [sampler.sample(target, e[i : i + 1], noise=SampleNoise([i])) for i in range(5)]
    torch.testing.assert_close(torch.cat([p.x for p in parts]), whole.x, rtol=1e-4, atol=1e-4)
    assert torch.cat([p.nfe for p in parts]).tolist() == whole.nfe.tolist()


def test_the_aligned_criterion_accepts_more_than_one_without_shared_noise():
    target, draft = trained_like(scale=1.5), trained_like(change=0.2, scale=1.5)
    shares = [
        speculative(draft, count=8, criterion=Aligned(share_noise=share), drafted=3)
        .sample(target, latents(400), noise=BatchNoise())
        .facts[JUDGED]
        .mean()
        for share in (True, False)
    ]
    assert shares[0] > shares[1] + 0.1


def test_the_target_draws_the_first_tokens_and_all_of_them_if_told_to():
    target, draft = constant(0.5), constant(0.4)
    sampler = Speculative(
        model=draft, tokens=steps(), criterion=ExactGaussian(), drafted=2, prefill=1.0
    )
    found = sampler.sample(target, latents(3), noise=SampleNoise(range(3)))
    assert found.nfe.tolist() == [4] * 3
    assert found.facts["draft passes"].tolist() == [0.0] * 3
    sampler.prefill = 0.5
    found = sampler.sample(target, latents(3), noise=SampleNoise(range(3)))
    assert found.facts["draft passes"].max() <= 2


def test_guidance_guides_target_and_draft():
    target = trained_like(label_dim=3, scale=1.5)
    labels = torch.tensor([0, 1, 2, 0])
    given = {"noise": SampleNoise(range(4)), "labels": labels}
    guided = ClassifierFree(scale=2.0).wrap(target)
    alone = MaskedAutoregressive(tokens=steps(3)).sample(guided, latents(4), **given)
    plain = MaskedAutoregressive(tokens=steps(3)).sample(target, latents(4), **given)
    found = speculative(target, count=3, drafted=2).sample(guided, latents(4), **given)
    torch.testing.assert_close(found.x, alone.x)
    assert (alone.x - plain.x).abs().max() > 1e-3
    assert alone.nfe.tolist() == [8] * 4
    assert found.nfe.tolist() == [4] * 4


def test_what_does_not_fit_is_refused():
    target = constant(0.5)
    small, other_path = constant(0.5, side=1, patch=2), model(network(), path=Path(VP()))
    mixture = MixtureModel(target.path, [1.0], [[0.0]], [[1.0]])
    for draft, said in (
        (small, "patch_size=2"),
        (other_path, "the draft's path is"),
        (constant(0.5, label_dim=3), "label_dim=3"),
        (mixture, "MixtureModel draws no tokens"),
    ):
        with pytest.raises(UsageError, match=said):
            speculative(draft).check(target)
    with pytest.raises(UsageError, match="draws no tokens"):
        speculative(target).check(mixture)
    with pytest.raises(UsageError, match="adds no noise"):
        speculative(target, t_end=0.0).check(target)
    speculative(constant(0.1)).check(target)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"drafted": 0}, "drafted is 0"),
        ({"prefill": 1.5}, "prefill is 1.5"),
        ({"max_tries": 0}, "max_tries is 0"),
        ({"tokens": steps(snr=0.1)}, "set them to null"),
    ],
)
def test_arguments_out_of_range_are_refused(options, said):
    given = {"model": constant(0.0), "tokens": steps(), "criterion": ExactGaussian()}
    with pytest.raises(ValueError, match=said):
        Speculative(**given | options)


def test_too_many_rejected_proposals_are_an_error_that_says_so():
    target, draft = constant(0.5), constant(0.499)
    sampler = speculative(draft, drafted=3, max_tries=1)
    with pytest.raises(UsageError, match="max_tries"):
        sampler.sample(target, latents(20_000), noise=BatchNoise())


def test_the_description_names_the_draft():
    text = speculative(constant(0.0), draft="outputs/small").describe()
    assert "4 drafted by outputs/small" in text
    assert "ExactGaussian" in text
