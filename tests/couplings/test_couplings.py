"""Couplings: what belongs to a row of x moves with it, and the marginals stay."""

import pytest
import torch

from flowexp.couplings import EntropicOT, Independent, MinibatchOT
from flowexp.seeding import generator

ALL = {
    "independent": Independent(),
    "ot": MinibatchOT(),
    "ot_replacement": MinibatchOT(replacement=True),
    "ot_per_class": MinibatchOT(per_class=True),
    "entropic": EntropicOT(reg=1.0),
    "entropic_per_class": EntropicOT(reg=1.0, per_class=True),
}
every_coupling = pytest.mark.parametrize("name", ALL)


def batch(n=24, seed=0):
    rng = generator(seed, "batch")
    e = torch.randn(n, 2, 3, generator=rng)
    x = torch.randn(n, 2, 3, generator=rng) + 1.0
    labels = torch.arange(n) % 3
    conditions = {"labels": labels, "marks": x[:, 0, 0].clone(), "absent": None}
    return x, e, conditions


def pair(coupling, x, e, conditions, seed=0):
    return coupling.pair(x, e, conditions, rng=generator(seed, "coupling"))


def mean_cost(pairs):
    return (pairs.x - pairs.e).square().flatten(1).sum(1).mean()


@every_coupling
def test_conditions_are_carried_along(name):
    x, e, conditions = batch()
    pairs = pair(ALL[name], x, e, conditions)
    assert pairs.x.shape == x.shape
    assert pairs.e.shape == e.shape
    assert torch.equal(pairs.conditions["marks"], pairs.x[:, 0, 0])
    label_of = {m.item(): k for m, k in zip(conditions["marks"], conditions["labels"], strict=True)}
    assert [label_of[m.item()] for m in pairs.x[:, 0, 0]] == pairs.conditions["labels"].tolist()
    assert pairs.conditions["absent"] is None
    assert pairs.weight is None


@every_coupling
def test_result_is_a_function_of_the_generator(name):
    first, again = pair(ALL[name], *batch()), pair(ALL[name], *batch())
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.e, again.e)


@every_coupling
def test_batch_of_one_is_left_alone(name):
    x, e, conditions = batch(1)
    pairs = pair(ALL[name], x, e, conditions)
    assert torch.equal(pairs.x, x)
    assert torch.equal(pairs.e, e)


def rows(a):
    return sorted(map(tuple, a.flatten(1).tolist()))


@pytest.mark.parametrize("name", ["independent", "ot", "ot_per_class"])
def test_permutations_keep_every_row(name):
    x, e, conditions = batch()
    pairs = pair(ALL[name], x, e, conditions)
    assert rows(pairs.x) == rows(x)
    assert rows(pairs.e) == rows(e)


def test_independent_changes_nothing():
    x, e, conditions = batch()
    pairs = pair(ALL["independent"], x, e, conditions)
    assert pairs.x is x
    assert pairs.e is e
    assert pairs.conditions is conditions


def test_cost_falls_from_independent_over_entropic_to_exact():
    x, e, conditions = batch(64)
    cost = {name: mean_cost(pair(c, x, e, conditions)) for name, c in ALL.items()}
    assert cost["ot"] < cost["ot_per_class"] < cost["independent"]
    assert cost["entropic"] < cost["independent"]


def test_replacement_draws_from_the_exact_plan():
    """512 draws with replacement: 63 % distinct; standard deviation 0.01, so false alarm < 1e-5."""
    x, e, conditions = batch(512)
    pairs = pair(MinibatchOT(replacement=True), x, e, conditions)
    distinct = len(pairs.conditions["marks"].unique()) / 512
    assert abs(distinct - (1 - 1 / torch.e)) < 0.06
    exact = pair(MinibatchOT(), x, e, conditions)
    partner = {i.item(): j for i, j in zip(exact.e[:, 0, 0], exact.x[:, 0, 0], strict=True)}
    drawn = torch.stack([partner[i.item()] for i in pairs.e[:, 0, 0]])
    assert torch.equal(drawn, pairs.x[:, 0, 0])


def test_per_class_pairs_the_sources_that_came_with_the_class():
    x, e, conditions = batch()
    pairs = pair(MinibatchOT(per_class=True), x, e, conditions)
    for k in range(3):
        came = e[conditions["labels"] == k]
        assert rows(pairs.e[pairs.conditions["labels"] == k]) == rows(came)
    with pytest.raises(ValueError, match="no labels"):
        pair(MinibatchOT(per_class=True), x, e, {"labels": None})


def test_larger_batches_straighten_the_pairs():
    def cost(n):
        each = [mean_cost(pair(MinibatchOT(), *batch(n, seed=i))) for i in range(512 // n)]
        return torch.stack(each).mean()

    costs = [cost(n) for n in (4, 32, 256)]
    assert costs[0] > costs[1] > costs[2]


def test_impossible_arguments_are_named():
    with pytest.raises(ValueError, match="reg"):
        EntropicOT(reg=0.0)
    with pytest.raises(ValueError, match="iterations"):
        EntropicOT(iterations=0)
    x, e, conditions = batch()
    with pytest.raises(ValueError, match="rows"):
        pair(MinibatchOT(), x, e[:3], conditions)
