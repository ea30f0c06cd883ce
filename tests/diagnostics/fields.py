"""Models with known trajectories, and evaluations to measure them in."""

import numpy as np
import torch

from flowexp.data import ImageArrays
from flowexp.diagnostics import Setting
from flowexp.models import Model
from flowexp.paths import Linear, Path, Prediction
from flowexp.pipeline import Pipeline, Processes
from flowexp.samplers import Euler, Uniform


class FieldModel(Model):
    """A velocity field ``v(x_t, t)`` on the linear path."""

    time_range = (0.0, 1.0)

    def __init__(self, field):
        self.path = Path(Linear())
        self.field = field

    def predict(self, x_t, t, **conditions):
        return Prediction.of_velocity(self.path, x_t, t, self.field(x_t, t))


class DataModel(Model):
    """A model that predicts the same data x for each row wherever it is evaluated: first order."""

    def __init__(self, path, x):
        self.path, self.x = path, x
        self.time_range = (path.schedule.t_min or 1e-3, path.schedule.t_max)

    def predict(self, x_t, t, **conditions):
        return Prediction.of_data(self.path, x_t, t, self.x.to(x_t))


def rank(index: int, world_size: int, mail: list) -> Processes:
    """One of several processes that run one after the other, the first one last."""

    class Rank(Processes):
        def gather(self, item):
            mail.append((self.rank, item))
            if not self.is_first:
                return None
            return [item for _, item in sorted(mail, key=lambda letter: letter[0])]

    return Rank(rank=index, world_size=world_size)


class Recorder(Processes):
    """Alone, and keeps what is gathered."""

    def __init__(self):
        super().__init__()
        self.gathered = []

    def gather(self, item):
        self.gathered += item
        return [item]

    def values(self, name: str) -> torch.Tensor:
        return torch.cat([batch[name] for batch in self.gathered])


def points(values, *, name="points/test", labels=None, num_classes=0) -> ImageArrays:
    array = np.asarray(values, dtype=np.float32)
    return ImageArrays.of(array, labels, num_classes=num_classes, name=name)


def pipeline(model, *, shape=(2,), **changes) -> Pipeline:
    given = {"sampler": Euler(steps=4, time_grid=Uniform()), "batch_size": 3}
    return Pipeline(model=model, shape=shape, **(given | changes))


def setting(model, *, seeds=range(8), **changes) -> Setting:
    names = ("shape", "task", "sampler", "batch_size")
    asked = {name: changes.pop(name) for name in names if changes.get(name) is not None}
    parts = {
        "pipeline": pipeline(model, **asked),
        "seeds": seeds,
        "reference": points(np.zeros((3, 2)), name="points/train"),
        "heldout": None,
        "processes": Processes(),
        "nfe": torch.zeros(0, dtype=torch.int64),
    }
    return Setting(**(parts | changes))


def draws(model, *, seeds=range(8), shape=(2,)) -> torch.Tensor:
    """The source draws of an evaluation, float64."""
    return pipeline(model, shape=shape).start(list(seeds)).e.double()


def measure(metric, model, **changes):
    (record,) = metric.measure(model, setting=setting(model, **changes))
    return record
