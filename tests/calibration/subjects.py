"""A mixture as a finished run, and what calibrations of it share."""

import threading

import numpy as np
import torch

from flowexp.calibration import Subject
from flowexp.data import Dataset, ImageArrays
from flowexp.models import Origin
from flowexp.paths import Linear, Path
from flowexp.pipeline import Pipeline, Processes
from flowexp.samplers import Euler, Uniform
from tests.samplers.closed_forms import MixtureModel

SHAPE = (1, 2, 2)


class Tiles(Dataset):
    """Random little pictures."""

    def __init__(self):
        super().__init__(name="tiles", shape=SHAPE, num_classes=0)

    def locate(self):
        pass

    def _read(self):
        images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
        return ImageArrays.of(images, None, num_classes=0, name="tiles/train")


class KilledError(Exception):
    """The process is gone."""


class Dying(MixtureModel):
    """A model that counts its calls, and whose process is killed at one of them."""

    calls_left = 10**9
    calls = 0

    def predict(self, x_t, t, **conditions):
        if self.calls_left <= 0:
            raise KilledError
        self.calls_left -= 1
        self.calls += 1
        return super().predict(x_t, t)


class Threads(Processes):
    """Processes of one program that wait for each other."""

    def __init__(self, *, rank, world_size, gate):
        super().__init__(rank=rank, world_size=world_size)
        self.gate = gate

    def barrier(self):
        self.gate.wait(timeout=60)


def subject_of(model, *, sampler, dataset, guidance=None, batch_size=8, **changes):
    """A subject with this model, sampled by this sampler."""
    sampled = {name: changes.pop(name) for name in ("task", "latents") if name in changes}
    pipeline = Pipeline(
        model=model if guidance is None else guidance.wrap(model),
        sampler=sampler,
        shape=dataset.shape,
        dataset=dataset,
        batch_size=batch_size,
        **sampled,
    )
    own = {"seed": 0, "processes": Processes()}
    return Subject(pipeline=pipeline, model=model, **(own | changes))


def subject(tmp_path, **changes):
    m = torch.tensor([[1.0, 0.5, -0.5, 0.2], [-1.0, 0.25, 0.75, -0.4]])
    model = Dying(Path(Linear()), [0.4, 0.6], m, 0.3)
    model.origin = Origin("abc", "main", tmp_path / "run" / "calibrations")
    parts = {
        "model": model,
        "sampler": Euler(steps=4, time_grid=Uniform()),
        "dataset": Tiles(),
    }
    return subject_of(**(parts | changes))


def run(given, calibration):
    directory = given.model.origin.calibrations / calibration.method
    return calibration.calibrate(given, directory=directory)


def run_in_two(tmp_path, calibration):
    """The same by two processes; what each made, and how often each asked the model."""
    gate, made = threading.Barrier(2), {}
    several = [
        subject(tmp_path, processes=Threads(rank=rank, world_size=2, gate=gate)) for rank in (0, 1)
    ]

    def work(rank):
        made[rank] = run(several[rank], calibration)

    workers = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [made[0], made[1]], [given.model.calls for given in several]


def arrays(file):
    with np.load(file) as content:
        return {key: torch.from_numpy(content[key]) for key in content.files}


def names(file):
    """What lies beside a result, hidden folders too."""
    return sorted(p.name for p in file.parent.iterdir())
