"""A class-conditional flow map with known values, conditioned on a guidance scale, and a batch."""

from dataclasses import replace

import torch

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives import FlowMapMatching, SquaredL2
from flowexp.objectives.flow_map import DataVelocity, Tangent
from flowexp.paths import Linear, Path, Prediction

N, D, CLASSES = 12, 3, 4
GUIDANCE = ("guidance_scale", "guidance_start", "guidance_end")


class Labelled(Model):
    """u(z, t, r, y), smooth in all; keeps the inputs of every call in ``received``."""

    is_flow_map = True
    time_range = (0.0, 1.0)

    def __init__(self):
        self.path = Path(Linear())
        rng = torch.Generator().manual_seed(0)
        shapes = {"W": (D, D), "E": (CLASSES + 1, D), "H": (D, D)}
        self.parameters = {
            name: torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_()
            for name, shape in shapes.items()
        }
        self.received = []

    def average_velocity(self, x_t, t, r, **conditions):
        self.received.append({"t": t, "r": r, **conditions})
        p, labels = self.parameters, conditions["labels"]
        guidance = sum(conditions[n] for n in GUIDANCE if n in conditions)
        inner = x_t @ p["W"].T + p["E"][labels] + expand_as(t + 0.1 * guidance, x_t)
        return torch.tanh(inner) + expand_as(torch.sin(t - r), x_t) * p["E"][0]

    def with_velocity_head(self, x_t, t, r, **conditions):
        average = self.average_velocity(x_t, t, r, **conditions)
        return average, torch.tanh(x_t @ self.parameters["H"].T + expand_as(t, x_t)) + average

    def predict(self, x_t, t, **conditions):
        velocity = self.average_velocity(x_t, t, t, **conditions)
        return Prediction.of_velocity(self.path, x_t, t, velocity)

    def gradients(self, loss):
        values = list(self.parameters.values())
        found = torch.autograd.grad(loss, values, allow_unused=True)
        return [torch.zeros(1) if g is None else g for g in found]


def matching(**parts):
    """An objective, MeanFlow's without adaptive weight by default."""
    defaults = {"driver": DataVelocity(), "leg": Tangent(), "premetric": SquaredL2()}
    return FlowMapMatching(**(defaults | parts))


def batch(objective, *, equal=4, seed=1):
    """Pairs with the objective's random numbers, and times of which the first have r = t."""
    rng = torch.Generator().manual_seed(seed)
    x, e = torch.randn(2, N, D, generator=rng, dtype=torch.float64)
    times = torch.rand(N, 2, generator=rng, dtype=torch.float64).sort(dim=1, descending=True)[0]
    times[:equal, 1] = times[:equal, 0]
    labels = torch.arange(N) % CLASSES
    uniforms = torch.rand(N, objective.uniforms, generator=rng, dtype=torch.float64)
    return Pairs(x, e, {"labels": labels}, uniforms=uniforms), times


def leap_of(objective, model, **options):
    pairs, times = batch(objective, **options)
    return objective.leap(model, pairs, times, rng=torch.Generator())


def part_of(pairs, times, rows):
    conditions = {name: value[rows] for name, value in pairs.conditions.items()}
    x, e, uniforms = pairs.x[rows], pairs.e[rows], pairs.uniforms[rows]
    return replace(pairs, x=x, e=e, conditions=conditions, uniforms=uniforms), times[rows]
