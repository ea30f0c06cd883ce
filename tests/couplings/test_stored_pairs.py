"""Stored and annealed pairs: what goes with what, and SlimFlow's laws of beta."""

import math

import pytest
import torch

from flowexp.couplings import (
    AnnealedPairs,
    ConstantAnnealing,
    CosineAnnealing,
    ExponentialAnnealing,
    Independent,
    LinearAnnealing,
    StoredPairs,
)
from flowexp.seeding import generator


def draws(n=8, shape=(1, 4, 4)):
    rng = generator(0, "pairs")
    x, fresh, partner = (torch.randn(n, *shape, generator=rng) for _ in range(3))
    return x, fresh, partner


def pair(coupling, x, fresh, partner, images_seen=0):
    conditions = {"labels": torch.arange(len(x))}
    return coupling.pair(
        x, fresh, conditions, rng=generator(0, "coupling"), partner=partner, images_seen=images_seen
    )


def test_stored_pairs_are_taken_as_they_are():
    x, fresh, partner = draws()
    pairs = pair(StoredPairs(), x, fresh, partner)
    assert torch.equal(pairs.x, x)
    assert torch.equal(pairs.e, partner)
    assert torch.equal(pairs.conditions["labels"], torch.arange(8))
    assert StoredPairs.needs_partner
    assert not Independent.needs_partner


@pytest.mark.parametrize("coupling", [StoredPairs(), AnnealedPairs(ConstantAnnealing(0.3))])
def test_missing_or_misshaped_partners_are_refused(coupling):
    x, fresh, partner = draws()
    with pytest.raises(ValueError, match="needs the source draws"):
        pair(coupling, x, fresh, None)
    with pytest.raises(ValueError, match=r"\(7, 1, 4, 4\)"):
        pair(coupling, x, fresh, partner[:7])


def test_the_ends_of_annealing_are_exact():
    x, fresh, partner = draws()
    annealing = AnnealedPairs(LinearAnnealing(2.0))
    assert torch.equal(pair(annealing, x, fresh, partner, 0).e, fresh)
    assert torch.equal(pair(annealing, x, fresh, partner, 2000).e, partner)
    assert torch.equal(pair(annealing, x, fresh, partner, 9999).e, partner)
    half = pair(annealing, x, fresh, partner, 1000).e
    assert torch.allclose(half, math.sqrt(0.75) * partner + 0.5 * fresh, atol=1e-6)


@pytest.mark.statistical
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.8, 1.0])
def test_the_interpolated_draw_is_normal_with_the_stated_correlation(beta):
    """2e5 values; every bound is 5 standard errors, a false alarm in about 1e-6 of all seeds."""
    x, fresh, partner = draws(2000, (100,))
    e = pair(AnnealedPairs(ConstantAnnealing(beta)), x, fresh, partner).e.double()
    error = 5.0 / math.sqrt(e.numel())
    assert abs(e.mean()) < error
    assert abs(e.var() - 1.0) < math.sqrt(2.0) * error
    correlation = (e * partner.double()).mean() / (e.std() * partner.double().std())
    assert abs(correlation - math.sqrt(1.0 - beta**2)) < error


@pytest.mark.parametrize(
    ("law", "images", "beta"),
    [
        (LinearAnnealing(10.0), 0, 1.0),
        (LinearAnnealing(10.0), 2500, 0.75),
        (LinearAnnealing(10.0), 20000, 0.0),
        (CosineAnnealing(10.0), 0, 1.0),
        (CosineAnnealing(10.0), 5000, 0.5),
        (CosineAnnealing(10.0), 10000, 0.0),
        (ExponentialAnnealing(10.0), 0, 1.0),
        (ExponentialAnnealing(10.0), 10000, math.exp(-1.0)),
        (ConstantAnnealing(0.3), 123, 0.3),
    ],
)
def test_laws_of_beta(law, images, beta):
    assert law(images) == pytest.approx(beta, abs=1e-12)


@pytest.mark.parametrize("law", [LinearAnnealing, CosineAnnealing, ExponentialAnnealing])
def test_lengths_must_be_positive(law):
    with pytest.raises(ValueError, match="kimg is 0"):
        law(0.0)
    with pytest.raises(ValueError, match=r"beta is 1\.5"):
        ConstantAnnealing(1.5)
