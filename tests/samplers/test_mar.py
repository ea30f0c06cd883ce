"""Masked autoregressive sampling: schedule, laws, counts, independence of the batch."""

from itertools import pairwise

import pytest
import torch
from scipy import stats

from flowexp.errors import UsageError
from flowexp.requirements import NetworkFacts, Parts
from flowexp.samplers import Heun, MaskedAutoregressive, Uniform
from flowexp.samplers.speculation import tokens_per_step
from flowexp.samplers.tokens import TokenDraws
from flowexp.seeding import SampleNoise
from tests.samplers.closed_forms import MixtureModel
from tests.samplers.token_models import T_END, BatchNoise, constant, latents, steps, trained_like


@pytest.mark.parametrize(("tokens", "count"), [(256, 64), (49, 16), (16, 5), (4, 1), (7, 7)])
def test_every_token_is_revealed_once_and_more_at_the_end(tokens, count):
    revealed = tokens_per_step(tokens, count)
    assert len(revealed) == count
    assert sum(revealed) == tokens
    assert min(revealed) >= 1
    assert revealed[-1] >= revealed[0]


def test_as_many_steps_as_tokens_are_one_token_a_step():
    assert tokens_per_step(49, 49) == [1] * 49


def test_tokens_have_the_law_of_their_head():
    """Kolmogorov-Smirnov on 40 thousand tokens; a false alarm in 1e-4 of the seeds."""
    sampler = MaskedAutoregressive(tokens=steps(3), steps=2)
    found = sampler.sample(constant(0.5), latents(10_000), noise=BatchNoise())
    law = stats.norm((1.0 - T_END) * 0.5, T_END)
    assert stats.kstest(found.x.flatten().numpy(), law.cdf).pvalue > 1e-4


def test_a_sample_is_the_same_in_every_batch_and_orders_are_random():
    model, e = trained_like(side=4), latents(6, 4)
    sampler = MaskedAutoregressive(tokens=steps(3), steps=5)
    whole = sampler.sample(model, e, noise=SampleNoise(range(6)))
    parts = [sampler.sample(model, e[i : i + 2], noise=SampleNoise([i, i + 1])) for i in (0, 2, 4)]
    torch.testing.assert_close(torch.cat([p.x for p in parts]), whole.x, rtol=1e-4, atol=1e-4)
    order = TokenDraws(model.network.to_tokens(e), SampleNoise(range(6))).order()
    assert order.sort(1).values.tolist() == [list(range(16))] * 6
    assert len({tuple(row) for row in order.tolist()}) == 6


def test_evaluations_of_backbone_and_head_are_counted_apart():
    sampler = MaskedAutoregressive(tokens=steps(3), steps=2)
    found = sampler.sample(trained_like(), latents(5), noise=SampleNoise(range(5)))
    assert found.nfe.tolist() == [2] * 5
    assert found.facts["head evaluations"].tolist() == [12.0] * 5  # 4 tokens of 3 steps


def test_any_sampler_draws_tokens_and_known_tokens_are_never_changed():
    seen = []
    sampler = MaskedAutoregressive(tokens=Heun(steps=3, time_grid=Uniform()))
    found = sampler.sample(
        trained_like(),
        latents(3),
        noise=SampleNoise(range(3)),
        on_step=lambda t, x: seen.append((float(t), x.clone())),
    )
    assert [t for t, _ in seen] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert not seen[0][1].any()
    assert torch.equal(seen[-1][1], found.x)
    for (_, before), (_, after) in pairwise(seen):
        kept = before != 0.0
        assert torch.equal(after[kept], before[kept])
        assert ((after != before).flatten(1).sum(1) == 1).all()


def test_what_does_not_fit_is_refused():
    sampler = MaskedAutoregressive(tokens=steps(), steps=5)
    with pytest.raises(ValueError, match="steps is 5; the images have 4 tokens"):
        sampler.check(constant(0.0))
    with pytest.raises(ValueError, match="steps is 0"):
        MaskedAutoregressive(tokens=steps(), steps=0)
    other = MixtureModel(constant(0.0).path, [1.0], [[0.0]], [[1.0]])
    with pytest.raises(UsageError, match="MixtureModel draws no tokens"):
        MaskedAutoregressive(tokens=steps()).check(other)
    with pytest.raises(ValueError, match="noise is None"):
        MaskedAutoregressive(tokens=steps()).sample(constant(0.0), latents(1))
    plain = NetworkFacts(0, 0, False, 1, 1, 2)
    found = list(sampler.needs(Parts(network=plain)))
    assert [unmet.remedy for unmet in found] == [
        "Train a model with network=mar task=masked_tokens."
    ]
