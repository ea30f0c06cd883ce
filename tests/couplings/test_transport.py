"""Optimal transport within a batch against scipy, closed forms and limits."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment

from flowexp.couplings import ShortestPaths
from flowexp.couplings.transport import (
    pairs_from_plan,
    sinkhorn_plan,
    squared_cost,
)
from flowexp.seeding import generator, open_uniform


def clouds(n, seed=0, shape=(3, 2)):
    rng = generator(seed, "clouds")
    return torch.randn(n, *shape, generator=rng), 2.0 + torch.randn(n, *shape, generator=rng)


def test_cost_is_the_squared_distance_in_float64():
    e, x = clouds(9)
    direct = (e.double()[:, None] - x.double()[None]).square().flatten(2).sum(-1)
    cost = squared_cost(e, x)
    assert cost.dtype == torch.float64
    torch.testing.assert_close(cost, direct, rtol=1e-12, atol=1e-12)
    assert (squared_cost(e, e) >= 0).all()


@pytest.mark.parametrize("n", [1, 2, 17, 64])
def test_permutation_is_scipys_and_never_worse_than_the_identity(n):
    cost = squared_cost(*clouds(n, seed=n))
    p = ShortestPaths().permutation(cost)
    assert np.array_equal(p.numpy(), linear_sum_assignment(cost.numpy())[1])
    assert sorted(p.tolist()) == list(range(n))
    assert cost[torch.arange(n), p].sum() <= cost.diagonal().sum()


def test_permutation_is_optimal_by_enumeration():
    cost = squared_cost(*clouds(5))
    best = min(
        sum(cost[i, p[i]].item() for i in range(5)) for p in itertools.permutations(range(5))
    )
    p = ShortestPaths().permutation(cost)
    assert cost[torch.arange(5), p].sum().item() == pytest.approx(best, rel=1e-12)


def test_sinkhorn_marginals_and_optimality():
    cost = squared_cost(*clouds(12))
    plan = sinkhorn_plan(cost, reg=1.0)
    uniform = torch.full((12,), 1 / 12, dtype=torch.float64)
    torch.testing.assert_close(plan.sum(0), uniform, rtol=1e-7, atol=0)
    torch.testing.assert_close(plan.sum(1), uniform, rtol=1e-7, atol=0)
    # log P + C / reg must be a sum of a row and a column potential
    potential = plan.log() + cost
    centred = potential - potential.mean(0) - potential.mean(1, keepdim=True) + potential.mean()
    assert centred.abs().max() < 1e-9


def test_sinkhorn_limits():
    cost = squared_cost(*clouds(8))
    flat = sinkhorn_plan(cost, reg=1e8)
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / 64), rtol=1e-5, atol=0)
    sharp = sinkhorn_plan(cost, reg=0.02, iterations=5_000)
    exact = torch.zeros_like(cost)
    exact[torch.arange(8), ShortestPaths().permutation(cost)] = 1 / 8
    torch.testing.assert_close(sharp, exact, rtol=0, atol=2e-3)
    assert (sharp * cost).sum().item() == pytest.approx((exact * cost).sum().item(), rel=1e-3)


def test_sinkhorn_survives_costs_whose_kernel_underflows():
    plan = sinkhorn_plan(1e4 * squared_cost(*clouds(6)), reg=1.0)
    assert plan.isfinite().all()
    assert plan.sum().item() == pytest.approx(1.0, rel=1e-6)
    with pytest.raises(ValueError, match="reg"):
        sinkhorn_plan(plan, reg=0.0)


@pytest.mark.statistical
def test_pairs_from_a_plan_follow_it():
    """Chi-square over 12 cells, 20,000 draws: false alarm 1e-3 per seed."""
    plan = torch.rand(3, 4, generator=generator(0, "plan"), dtype=torch.float64)
    plan[1, 2] = 0.0
    i, j = pairs_from_plan(plan, open_uniform((20_000,), rng=generator(1, "pairs")))
    counts = torch.bincount(4 * i + j, minlength=12).numpy()
    expected = (plan / plan.sum()).flatten().numpy() * 20_000
    kept = expected > 0
    assert counts[~kept].sum() == 0
    assert stats.chisquare(counts[kept], expected[kept]).pvalue > 1e-3
