"""Rows of a batch and a flow map whose every derivative is known, in float64."""

import torch

from flowexp.couplings import Pairs
from flowexp.objectives import FlowMapMatching, SumOfSquares
from flowexp.objectives.flow_map import Legs
from flowexp.paths import Linear, Path
from flowexp.seeding import generator
from tests.goldens.flow_maps_network import GoldenFlowMap

ROWS, SIZE = 8, 3


def analytic(schedule=None, *, seed=0):
    """The network of the goldens with random weights; it is no exact flow map of anything."""
    rng = generator(seed, "analytic")
    shapes = {"W": (SIZE, SIZE), "b": (SIZE,), "c": (SIZE,)}
    weights = {
        name: (0.6 * torch.randn(shape, generator=rng, dtype=torch.float64)).numpy()
        for name, shape in shapes.items()
    }
    return GoldenFlowMap(weights, path=Path(schedule or Linear()))


def batch(*, diagonal=0, share=0.3, seed=0):
    """Pairs, and times of which the first rows have r = t."""
    rng = generator(seed, "rows")
    x, e = torch.randn(2, ROWS, SIZE, generator=rng, dtype=torch.float64)
    times = torch.rand(ROWS, 2, generator=rng, dtype=torch.float64)
    times = 0.1 + 0.8 * times.sort(dim=1, descending=True).values
    times[:diagonal, 1] = times[:diagonal, 0]
    uniforms = torch.full((ROWS, 1), share, dtype=torch.float64)
    return Pairs(x=x, e=e, conditions={}, uniforms=uniforms), times


def objective(driver, leg, **parts):
    premetric = SumOfSquares(factor=1.0)
    return FlowMapMatching(driver=driver, leg=leg, premetric=premetric, **parts)


def compared(matching, model, pairs, times):
    """The rows of the objective, what it compares there, and their difference."""
    leap = matching.leap(model, pairs, times, rng=generator(0, "rows"))
    legs = Legs(matching.driver, matching.target, matching.diagonal)
    comparison = matching.leg.compare(model, leap, legs)
    return leap, comparison, matching.regressed.difference(comparison, leap)


def gradient(model, difference):
    """The gradient of the sum of squares with respect to all parameters, as one vector."""
    found = model.gradients(difference.square().sum())
    return torch.cat([value.flatten() for value in found.values()])
