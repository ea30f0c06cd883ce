"""Models and streams for the tests: all arithmetic in float64, rows independent of each other."""

import torch

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.paths import VP, Linear, Path, Prediction
from flowexp.pipeline import Pipeline
from flowexp.samplers import Euler
from flowexp.streaming import (
    FullNegative,
    NoNegative,
    OneTimeNegative,
    SelfNegative,
    StreamBatch,
)

SHAPE = (2, 3, 3)
TIMES = [0.8, 0.5, 0.2]
GUIDANCE = {
    "none": NoNegative(),
    "full": FullNegative(scale=1.6),
    "self": SelfNegative(scale=1.4, delta=0.9),
    "one_time": OneTimeNegative(scale=1.7, delta=0.8),
}
LABEL = {"labels": torch.tensor([2])}


class TanhModel(Model):
    """A noise prediction that depends on state, time and label, and counts its rows."""

    def __init__(self, schedule=None):
        self.path = Path(schedule or Linear())
        self.time_range = (self.path.schedule.t_min, self.path.schedule.t_max)
        self.rows = []

    def predict(self, x_t, t, **conditions):
        self.rows.append(len(x_t))
        labels = conditions.get("labels")
        shift = 0.0 if labels is None else 0.3 * expand_as(labels.double(), x_t)
        inner = 0.8 * x_t + 0.2 * x_t.flip(-1) + shift + expand_as(t, x_t)
        return Prediction.of_noise(self.path, x_t, t, torch.tanh(inner))


def frames(count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, *SHAPE, generator=rng, dtype=torch.float64) * 2.0 - 1.0


def stream(model=None, **options):
    settings = {"times": TIMES, "dtype": torch.float64, "conditions": LABEL}
    return StreamBatch(pipeline(model or TanhModel(VP())), **settings | options)


def pipeline(model, shape=SHAPE):
    return Pipeline(model=model, sampler=Euler(steps=1), shape=tuple(shape))


def through(batch, x):
    """All results of a stream of frames, in groups as the batch wants them."""
    groups = x.split(batch.group)
    found = [y for group in groups if (y := batch.push(group)) is not None]
    return torch.cat(found + batch.flush())
