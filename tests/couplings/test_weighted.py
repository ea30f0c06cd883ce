"""Gibbs-kernel weights: their limits, their plan, and what a loss does with them."""

import math

import pytest
import torch

from flowexp.couplings import (
    DataCorrection,
    EuclideanCost,
    Independent,
    NoCorrection,
    SquaredCost,
    Weighted,
)
from flowexp.couplings.transport import sinkhorn_plan
from flowexp.couplings.weighted import normalized_weights, relative_ess
from flowexp.seeding import generator


def weighted(epsilon=None, *, cost=None, correction=None, **others):
    return Weighted(
        epsilon=epsilon,
        cost=cost or EuclideanCost(),
        tilt_correction=correction or NoCorrection(),
        **others,
    )


def batch(n=256, seed=0, shape=(3, 4, 4), dtype=torch.float32):
    rng = generator(seed, "batch")
    e = torch.randn(n, *shape, generator=rng, dtype=dtype)
    contrast = 0.2 + torch.rand(n, *[1] * len(shape), generator=rng, dtype=dtype)
    return contrast * torch.randn(n, *shape, generator=rng, dtype=dtype), e


def pair(coupling, x, e, conditions=None):
    return coupling.pair(x, e, conditions or {}, rng=generator(0, "coupling"))


def test_pairs_and_conditions_stay_and_weights_have_mean_one():
    x, e = batch()
    labels = torch.arange(len(x)) % 3
    pairs = pair(weighted(2.0), x, e, {"labels": labels})
    assert pairs.x is x
    assert pairs.e is e
    assert pairs.conditions["labels"] is labels
    assert pairs.weight.dtype == torch.float64
    assert not pairs.weight.requires_grad
    assert pairs.weight.mean().item() == pytest.approx(1.0, rel=1e-12)
    distance = (e.double() - x.double()).flatten(1).norm(dim=1)
    expected = torch.exp(-distance / 2.0)
    torch.testing.assert_close(pairs.weight, expected / expected.mean())


def test_a_large_epsilon_is_the_independent_coupling():
    x, e = batch()
    assert Independent().pair(x, e, {}).weight is None
    torch.testing.assert_close(
        pair(weighted(1e9), x, e).weight, torch.ones(len(x), dtype=torch.float64), rtol=0, atol=1e-7
    )


def test_weights_do_not_underflow_and_have_no_scale():
    """A million times the distance of images: raw weights are 0 in every float."""
    x, e = batch()
    pairs = pair(weighted(1e-3), 1e3 * x, e)
    assert pairs.weight.isfinite().all()
    assert pairs.weight.mean().item() == pytest.approx(1.0)
    log_weight = torch.linspace(-9.0, 0.0, 50, dtype=torch.float64)
    torch.testing.assert_close(
        normalized_weights(log_weight + math.log(1e-6)), normalized_weights(log_weight)
    )


def test_weighted_pairs_are_shorter_the_smaller_epsilon_is():
    x, e = batch(2048)
    distance = (e - x).flatten(1).norm(dim=1).double()
    means = [
        (pair(weighted(epsilon), x, e).weight * distance).mean().item()
        for epsilon in (0.3, 1.0, 3.0, 10.0)
    ]
    assert means == sorted(means)
    assert means[-1] < distance.mean()
    shares = [pair(weighted(s), x, e).metrics["coupling_ess"].item() for s in (0.3, 1.0, 3.0, 10.0)]
    assert shares == sorted(shares)


def test_the_squared_cost_is_the_square():
    x, e = batch(8)
    squared = SquaredCost().matrix(e, x)
    torch.testing.assert_close(EuclideanCost().matrix(e, x).square(), squared)
    torch.testing.assert_close(SquaredCost().paired(e, x), squared.diagonal(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("correction", [NoCorrection(), DataCorrection()])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_epsilon_is_found_by_its_effective_sample_size(share, correction):
    x, e = batch()
    pairs = pair(weighted(ess=share, correction=correction), x, e)
    assert pairs.metrics["coupling_ess"].item() == pytest.approx(share, rel=1e-6)
    assert relative_ess(pairs.weight).item() == pytest.approx(share, rel=1e-6)


def test_epsilon_relative_to_the_dimension():
    x, e = batch()
    assert pair(weighted(kappa=0.5), x, e).metrics["coupling_epsilon"].item() == 0.5 * math.sqrt(48)
    same = pair(weighted(0.5 * math.sqrt(48)), x, e)
    assert torch.equal(pair(weighted(kappa=0.5), x, e).weight, same.weight)


def test_identical_pairs_have_equal_weights():
    x = torch.ones(5, 2)
    pairs = pair(weighted(ess=0.5), x, torch.zeros(5, 2))
    assert torch.equal(pairs.weight, torch.ones(5, dtype=torch.float64))


@pytest.mark.statistical
def test_tilt_falls_on_data_of_small_norm_and_is_corrected():
    """4096 pairs: without correction the mean norm falls by 20 standard errors or so."""
    x, e = batch(4096)
    found = pair(weighted(1.0), x, e).metrics
    assert found["data_norm_weighted"] < 0.95 * found["data_norm"]
    fixed = pair(weighted(1.0, correction=DataCorrection()), x, e).metrics
    assert fixed["data_norm_weighted"].item() == pytest.approx(fixed["data_norm"].item(), rel=0.02)


def circle(n, rng):
    angle = 2.0 * math.pi * torch.rand(n, generator=rng, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


@pytest.mark.statistical
def test_weights_are_those_of_the_entropic_plan_up_to_the_marginals():
    """Data on a circle have equal marginal weight: dividing the plan by that of the sources, the
    two agree to the error of a batch of 1500 (the largest found is 0.04)."""
    rng = generator(0, "circle")
    x, e = circle(1500, rng), torch.randn(1500, 2, generator=rng, dtype=torch.float64)
    cost, epsilon = EuclideanCost().matrix(e, x), 1.0
    kernel = torch.exp(-cost / epsilon)
    kernel = kernel / kernel.mean()
    assert (kernel.mean(0) - 1.0).abs().max() < 0.05
    plan = sinkhorn_plan(cost, reg=epsilon) * cost.numel()
    tilted = kernel / kernel.mean(1, keepdim=True)
    assert (plan / tilted - 1.0).abs().max() < 0.08


@pytest.mark.statistical
def test_the_minimiser_is_the_weighted_mean():
    """Two data points in one dimension at t = 1/2, where a state z has two pairs (e, x): the mean
    of v under weights, from two million pairs in bins, against the closed form; 5 standard errors
    of a bin, about 200 bins: false alarm 1e-4."""
    rng = generator(1, "two points")
    count, epsilon = 2_000_000, 0.7
    x = torch.randint(0, 2, (count, 1), generator=rng).double() * 3.0 - 1.0
    e = torch.randn(count, 1, generator=rng, dtype=torch.float64)
    weight = pair(weighted(epsilon), x, e).weight
    z, v = (0.5 * (x + e)).flatten(), (e - x).flatten()
    width = 0.02
    index = torch.round(z / width).long()
    low, high = round(-1.5 / width), round(2.0 / width)
    kept = (index >= low) & (index <= high)
    index, weight, v = index[kept] - low, weight[kept], v[kept]

    def total(values):
        return torch.zeros(high - low + 1, dtype=torch.float64).index_add(0, index, values)

    mean = total(weight * v) / total(weight)
    centre = width * torch.arange(low, high + 1, dtype=torch.float64)

    points = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    source = 2.0 * centre[:, None] - points
    density = torch.exp(-0.5 * source.square() - (source - points).abs() / epsilon)
    exact = (density * (source - points)).sum(1) / density.sum(1)
    spread = total(weight.square() * (v - mean[index]).square()).sqrt() / total(weight)
    # within a bin v varies by 2 width, and its mean by less than that
    assert ((mean - exact).abs() < 5.0 * spread + 2.0 * width).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"kappa": 0.0}, "kappa"),
        ({"ess": 1.0}, "ess"),
        ({"ess": 0.0}, "ess"),
        ({}, "none is given"),
        ({"epsilon": 5.0, "ess": 0.8}, "epsilon and ess is given"),
    ],
)
def test_impossible_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        weighted(**arguments)
