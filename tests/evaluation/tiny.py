"""A small model and metric for evaluations, alone or with several processes."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchmetrics.image
from torch import Tensor, nn

from flowexp.data import ImageArrays
from flowexp.evaluation import score
from flowexp.metrics import FrechetDistance, Metric, RawValues
from flowexp.models import FlowModel
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import Linear
from flowexp.paths import Path as FlowPath
from flowexp.pipeline import Pipeline, Processes
from flowexp.samplers import Heun
from flowexp.samplers.time_grids import Natural
from flowexp.tasks import Generation
from tests.evaluation.foreign import Projection

SHAPE = (1, 3, 3)


class TinyNetwork(nn.Module):
    """A convolution and a label; in evaluation mode each row is computed by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)
        self.label = nn.Embedding(4, 1)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = torch.full((len(x),), -1) if labels is None else labels
        return self.convolution(x) + self.label(labels + 1)[..., None, None]


def tiny_model() -> FlowModel:
    torch.manual_seed(0)
    network = TinyNetwork().eval()
    return FlowModel(FlowPath(Linear()), network=network, parameterization=VelocityPrediction())


def heun() -> Heun:
    return Heun(steps=3, time_grid=Natural())


def task() -> Generation:
    return Generation(num_classes=3)


def pipeline(**changes) -> Pipeline:
    given = {"model": tiny_model(), "sampler": heun(), "task": task(), "shape": SHAPE}
    return Pipeline(**{**given, **changes})


def reference(count: int = 64, *, seed: int = 0) -> ImageArrays:
    images = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return ImageArrays.of(images, None, num_classes=0, name="tiles/train")


def metric() -> FrechetDistance:
    return FrechetDistance(RawValues(), name="fd_raw")


def kernel_distance(**changes) -> torchmetrics.image.KernelInceptionDistance:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all")
        return torchmetrics.image.KernelInceptionDistance(
            **{"feature": Projection(), "subsets": 3, "subset_size": 8, **changes}
        )


def evaluate_together(results: Path, name: str, metric: Callable[[], Metric]) -> None:
    """Evaluate 50 samples with the other processes, and write what all have seen."""
    with Processes.start() as processes:
        seen: list[int] = []
        result = score(
            pipeline(batch_size=8),
            metrics={name: metric()},
            reference=reference(),
            seeds=range(50),
            processes=processes,
            on_batch=lambda batch: seen.extend(batch.seeds),
        )
        everyones = processes.gather(seen)
        if everyones is not None:
            content = {
                "records": [record.to_dict() for record in result.records],
                "count": result.count,
                "nfe": result.nfe,
                "seeds": everyones,
            }
            results.write_text(json.dumps(content))
