"""A teacher whose pairs are known: pictures N(m, c^2) per pixel, for which x = m + c e."""

from pathlib import Path as FilePath

import numpy as np
import torch

from flowexp.data import Dataset, ImageArrays
from flowexp.data.pair_store import PairManifest, PairStore
from flowexp.pairs import FromNoise, write_store
from flowexp.paths import Linear, Path
from flowexp.pipeline import Pipeline
from flowexp.samplers import DormandPrince
from flowexp.tasks import Generation
from tests.samplers.closed_forms import MixtureModel

SHAPE = (1, 2, 4)
MEAN = torch.linspace(-0.3, 0.3, 8, dtype=torch.float64)
SPREAD = 0.25


def model(spread: float = SPREAD) -> MixtureModel:
    return MixtureModel(Path(Linear()), [1.0], MEAN[None], [[spread] * 8])


def image_of(e: torch.Tensor) -> torch.Tensor:
    return (MEAN + SPREAD * e.double().flatten(1)).reshape(e.shape).float()


def data(n: int = 20) -> ImageArrays:
    images = np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype=np.uint8)
    return ImageArrays.of(images, np.arange(n) % 4 // 3, num_classes=2, name="made")


class Given(Dataset):
    """A data set with these training items."""

    def __init__(self, arrays: ImageArrays) -> None:
        super().__init__(name="made", shape=SHAPE, num_classes=arrays.num_classes)
        self.arrays = arrays

    def locate(self) -> None:
        pass

    def _read(self) -> ImageArrays:
        return self.arrays


def teacher(*, spread: float = SPREAD, num_classes: int = 2, data=None, **changes) -> Pipeline:
    given = {
        "model": model(spread),
        "sampler": DormandPrince(rtol=1e-6, atol=1e-6),
        "shape": SHAPE,
        "task": Generation(num_classes=num_classes),
        "dataset": None if data is None else Given(data),
        "batch_size": 4,
    }
    return Pipeline(**{**given, **changes})


def manifest(maker, of: Pipeline, *, ranges=((0, 19),), shard_size: int = 6, **changes):
    images, noise = maker.formats(of)
    given = {
        "teacher": {"run": "made", "checkpoint": "last", "sha256": "0", "weights": "raw"},
        "start": type(maker).__name__,
        "sampler": "exact",
        "guidance": "none",
        "labels": maker.label_distribution(of),
        "source": "Gaussian()",
        "shape": SHAPE,
        "num_classes": of.task.num_classes,
        "images": images,
        "noise": noise,
        "identity": maker.identity,
        "ranges": ranges,
        "shard_size": shard_size,
        "batch_size": of.batch_size,
    }
    return PairManifest(**{**given, **changes})


MADE_BY = {"sampler": {"steps": 3}, "run": "made"}


def written(
    folder: FilePath, *, maker=None, of: Pipeline | None = None, config=MADE_BY, **changes
) -> PairStore:
    maker, of = maker or FromNoise(), of or teacher()
    write_store(
        folder,
        manifest=manifest(maker, of, **changes),
        config=config,
        make=lambda members: maker.make(of, members),
    )
    return PairStore.open(folder)


def content(folder: FilePath) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}
