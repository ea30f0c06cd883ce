"""Regression of the unknown pixels only."""

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.objectives import MaskedRegression, Regression, SquaredL2, weightings
from flowexp.paths import Linear, Path
from flowexp.requirements import NetworkFacts, Parts
from flowexp.seeding import generator
from tests.objectives.models import Fixed

SETTINGS = {"weighting": weightings.Uniform(), "premetric": SquaredL2()}
MASKED = MaskedRegression("velocity", **SETTINGS)


def batch(mask):
    rng = generator(0, "pairs")
    x, e = torch.randn(2, 4, 3, 2, 2, generator=rng)
    return Pairs(x=x, e=e, conditions={"mask": mask})


def losses(objective, pairs, change=0.0):
    """The loss of a model that predicts 0, or ``change`` where pixels are known."""
    mask = pairs.conditions["mask"]
    known = torch.zeros(4, 3, 2, 2) if mask is None else change * (mask < 0)
    model = Fixed(Path(Linear()), "velocity", known.expand(4, 3, 2, 2))
    t = torch.full((4,), 0.3, dtype=torch.float64)
    return objective.loss(model, pairs, t, rng=generator(0, "loss")).per_sample


def test_known_pixels_do_not_count_and_unknown_ones_count_alike():
    mask = torch.ones(4, 1, 2, 2)
    mask[1, :, 0, 0] = mask[2, :, :, 1] = -1.0
    pairs = batch(mask)
    squares = (pairs.e - pairs.x).square() * (mask > 0)
    expected = squares.flatten(1).sum(1) / 12
    torch.testing.assert_close(losses(MASKED, pairs), expected)
    torch.testing.assert_close(losses(MASKED, pairs, change=7.0), expected)


def test_where_nothing_is_known_it_is_plain_regression():
    pairs = batch(torch.ones(4, 1, 2, 2))
    torch.testing.assert_close(
        losses(MASKED, pairs), losses(Regression("velocity", **SETTINGS), pairs)
    )


def test_a_batch_or_a_network_without_mask_is_refused():
    with pytest.raises(ValueError, match="have no mask"):
        losses(MASKED, batch(None))
    facts = NetworkFacts(0, 0, False, 3, 3, 2, condition_dropout={})
    found = [unmet.remedy for unmet in MASKED.needs(Parts(network=facts))]
    assert found == ["Use network=mar task=masked_tokens."]
    given = NetworkFacts(0, 0, False, 3, 3, 2, condition_dropout={"image": 0.0, "mask": 0.0})
    assert list(MASKED.needs(Parts(network=given))) == []
