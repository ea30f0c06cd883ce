"""A training small enough to be run many times in a test."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowexp.couplings import Independent, Pairs
from flowexp.data import Dataset, ImageArrays
from flowexp.models import FlowModel, Model
from flowexp.objectives import Loss, Objective
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import Linear
from flowexp.paths import Path as FlowPath
from flowexp.pipeline import Pipeline
from flowexp.runs import RunDirectory
from flowexp.samplers import Sampler
from flowexp.seeding import derive_seed
from flowexp.tasks import Generation
from flowexp.timesteps import Uniform
from flowexp.training import (
    Constant,
    FitResult,
    HalfLifeEMA,
    PowerEMA,
    TrainerSettings,
    TrainingParts,
    fit,
)

SIDE = 4


class Tiles(Dataset):
    """Sixty-four grey 4 x 4 pictures of three classes."""

    def __init__(self) -> None:
        super().__init__(name="tiles", shape=(1, SIDE, SIDE), num_classes=3, hflip=True)

    def locate(self) -> None: ...

    def _read(self) -> ImageArrays:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (64, 1, SIDE, SIDE), dtype=np.uint8)
        return ImageArrays.of(images, np.arange(64) % 3, num_classes=3, name="tiles")


class TinyNetwork(nn.Module):
    """Two convolutions with dropout, a label embedding and a counter buffer."""

    def __init__(self, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.label_dim = 3
        self.enter = nn.Conv2d(1, 8, 3, padding=1)
        self.time = nn.Linear(1, 8)
        self.label = nn.Embedding(4, 8)
        self.dropout = nn.Dropout(dropout)
        self.leave = nn.Conv2d(8, 1, 3, padding=1)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = torch.full((len(x),), -1) if labels is None else labels
        h = (
            self.enter(x)
            + (self.time(c_noise[:, None] / 1000.0) + self.label(labels + 1))[..., None, None]
        )
        if self.training:
            self.calls += 1
        return self.leave(self.dropout(torch.nn.functional.silu(h)))


class Squares(Objective):
    """Mean squared error of the velocity; may be nan from a step on."""

    def __init__(self, *, nan_from: int | None = None) -> None:
        self.calls = 0
        self.nan_from = nan_from

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        point = model.path.point(pairs.x, pairs.e, t)
        error = model.velocity(point.x_t, t, **pairs.conditions) - point.velocity
        per_sample = error.square().flatten(1).mean(1)
        self.calls += 1
        if self.nan_from is not None and self.calls > self.nan_from:
            per_sample = per_sample * float("nan")
        return Loss(per_sample, {"error": error.detach().abs().mean()})


def tiny_model(seed: int = 0, *, dropout: float = 0.1) -> FlowModel:
    torch.manual_seed(derive_seed(seed, "init"))
    return FlowModel(
        FlowPath(Linear()),
        network=TinyNetwork(dropout=dropout),
        parameterization=VelocityPrediction(),
    )


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return partial(torch.optim.Adam, lr=1e-2, fused=True)(parameters)


def tiny_settings(**changes: Any) -> TrainerSettings:
    values: dict[str, Any] = {
        "max_kimg": 0.32,
        "batch_size": 16,
        "accelerator": "cpu",
        "log_every": 3,
        "checkpoint_kimg": 0.064,
    }
    return TrainerSettings(**(values | changes))


def train(
    folder: Path,
    *,
    seed: int = 0,
    model: FlowModel | None = None,
    settings: TrainerSettings | None = None,
    config: Mapping[str, Any] | None = None,
    sampler: Sampler | None = None,
    **changes: Any,
) -> FitResult:
    """Train the tiny model in ``folder``, continuing what is there."""
    config = {"seed": seed, "trainer": {"batch_size": 16}} if config is None else config
    model = tiny_model(seed) if model is None else model
    dataset = Tiles()
    pipeline = sampler and Pipeline(
        model=model, sampler=sampler, shape=dataset.shape, task=Generation(num_classes=3)
    )
    parts: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "settings": tiny_settings() if settings is None else settings,
        "pipeline": pipeline,
        "coupling": Independent(),
        "timestep": Uniform(),
        "objective": Squares(),
        "optimizer": adam,
        "lr_schedule": Constant(ramp_up_kimg=0.1),
        "emas": {"main": HalfLifeEMA(half_life_kimg=0.05), "power": PowerEMA(std=0.1)},
    }
    return fit(
        TrainingParts(**(parts | changes)),
        run=RunDirectory.start(folder, config=config),
        seed=seed,
        config=config,
    )
