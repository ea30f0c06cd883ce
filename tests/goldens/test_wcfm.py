"""Weighted conditional flow matching: weights, tilted plans, and the velocity that they lead to."""

import math
import re

import numpy as np
import torch

from flowexp.couplings import EuclideanCost, NoCorrection, Pairs, Weighted
from flowexp.couplings.transport import sinkhorn_plan
from flowexp.couplings.weighted import Costs, gibbs_plan
from flowexp.objectives import Regression, SquaredL2, weightings
from flowexp.paths import Linear, Path
from tests.goldens.harness import dispatch, parametrize
from tests.objectives.models import Fixed

COST = EuclideanCost()


def load(case):
    with np.load(case, allow_pickle=False) as stored:
        return {key: torch.from_numpy(np.array(stored[key])) for key in stored.files}


def close(actual, expected, *, rtol=1e-9, atol=1e-12):
    torch.testing.assert_close(actual.to(torch.float64), expected, rtol=rtol, atol=atol)


def weighted(epsilon):
    return Weighted(epsilon=epsilon, cost=COST, tilt_correction=NoCorrection())


def check_pair_weights(case):
    g = load(case)
    e, x = g["e"], g["x"]
    close(COST.paired(e, x), g["dist"])
    seen = {"e", "x", "dist"}
    names = [key.removeprefix("eps_") for key in g if re.fullmatch(r"eps_.+", key)]
    assert names
    for name in names:
        coupling = weighted(g[f"eps_{name}"].item())
        log_weight = coupling.log_weight(Costs(COST, e, x), epsilon=coupling.epsilon)
        pairs = coupling.pair(x, e, {})
        # at a small epsilon the raw weights underflow
        close(torch.exp(log_weight), g[f"w_eps{name}"], atol=1e-300)
        close(pairs.weight, g[f"wnorm_eps{name}"])
        close(pairs.metrics["coupling_ess"], g[f"ess_eps{name}"])
        seen |= {f"{key}_eps{name}" for key in ("w", "wnorm", "ess")} | {f"eps_{name}"}
        check_loss_and_gradient(e, x, weight=g[f"wnorm_eps{name}"], pairs=pairs)
    assert set(g) <= seen, f"arrays without a check: {set(g) - seen}"


def check_loss_and_gradient(e, x, *, weight, pairs):
    """The loss is ``w |v - (e - x)|^2 / N``, its gradient ``2 w (v - (e - x)) / N``; w once."""
    output = torch.sin(torch.arange(x.numel(), dtype=torch.float64)).reshape(x.shape)
    output.requires_grad_()
    t = torch.linspace(0.1, 0.9, len(x), dtype=torch.float64)
    loss = velocity_loss(output, pairs, t)
    difference = output.detach() - (e - x)
    w = weight.reshape(-1, *[1] * (x.ndim - 1))
    close(loss.detach(), weight * difference.square().flatten(1).mean(1), rtol=1e-6)
    (gradient,) = torch.autograd.grad(loss.sum(), output)
    close(gradient, 2.0 * w * difference / x[0].numel(), rtol=1e-6)


def velocity_loss(output, pairs, t):
    objective = Regression("velocity", weighting=weightings.Uniform(), premetric=SquaredL2())
    model = Fixed(Path(Linear()), "velocity", output)
    return objective.loss(model, pairs, t, rng=torch.Generator()).per_sample


def check_tilted_plan(case):
    g = load(case)
    epsilon = g["epsilon"].item()
    cost = COST.matrix(g["e"], g["x"])
    close(cost, g["cost"])
    plan = gibbs_plan(cost, epsilon=epsilon)
    close(plan, g["plan_tilted"])
    close(plan.sum(1), g["marg_source"])
    close(plan.sum(0), g["marg_data"])
    marginals = g["marg_source"], g["marg_data"]
    exact = {"reg": epsilon, "iterations": 100_000, "tolerance": 1e-13}
    between = sinkhorn_plan(cost, marginals=marginals, **exact)
    close(between, g["plan_eot_tilted_marginals"], rtol=0.0, atol=1e-8)
    close(between, plan, rtol=0.0, atol=1e-10)
    uniform = sinkhorn_plan(cost, **exact)
    close(uniform, g["plan_eot_uniform_marginals"], rtol=0.0, atol=1e-8)
    assert (uniform - plan).abs().max() > 1e-6
    seen = {"e", "x", "cost", "epsilon", "plan_tilted", "marg_source", "marg_data",
            "plan_eot_tilted_marginals", "plan_eot_uniform_marginals"}  # fmt: skip
    assert set(g) <= seen, f"arrays without a check: {set(g) - seen}"


def check_weighted_velocity(case):
    """The constant velocity that minimises the loss around z is the kernel estimate there."""
    g = load(case)
    n, m = len(g["e"]), len(g["x"])
    i, j = torch.cartesian_prod(torch.arange(n), torch.arange(m)).unbind(1)
    e, x, t = g["e"][i], g["x"][j], g["t"].expand(n * m)
    gibbs = weighted(g["epsilon"].item()).pair(x, e, {}).weight
    state = Path(Linear()).point(x, e, t).x_t
    near = torch.exp(-0.5 * ((state - g["z"]) / g["bandwidth"]).square().sum(1))
    for key, weight in (("v_uniform", near), ("v_weighted", near * gibbs)):
        velocity = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
        pairs = Pairs(x=x, e=e, conditions={}, weight=weight)
        loss = velocity_loss(velocity.expand_as(x), pairs, t).sum()
        (gradient,) = torch.autograd.grad(loss, velocity)
        curvature = 2.0 * weight.sum() / x.shape[1]
        # losses are float32, their gradients not
        close(-gradient / curvature, g[key], rtol=1e-7, atol=1e-9)
    seen = {"t", "z", "bandwidth", "e", "x", "epsilon", "v_uniform", "v_weighted"}
    assert set(g) <= seen, f"arrays without a check: {set(g) - seen}"


CHECKS = {
    "pair_weights": check_pair_weights,
    "tilted_plan": check_tilted_plan,
    "weighted_velocity": check_weighted_velocity,
}


@parametrize("wcfm")
def test_golden(case):
    dispatch(case, CHECKS)


def test_the_kernel_is_not_squared():
    assert math.isclose(float(COST.of_squares(torch.tensor(9.0))), 3.0)
