"""A teacher whose pairs are known: pictures N(m, c^2) per pixel, for which x = m + c e."""

from pathlib import Path as FilePath

import numpy as np
import torch

from flowexp.data import ImageArrays
from flowexp.data.pair_manifest import PairManifest
from flowexp.data.pair_store import PairStore
from flowexp.evaluation import FlowexpLatents
from flowexp.guidance import NoGuidance
from flowexp.pairs import FromNoise, Teacher, write_store
from flowexp.paths import Linear, Path
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


def teacher(*, spread: float = SPREAD, num_classes: int = 2, **changes) -> Teacher:
    given = {
        "model": model(spread),
        "sampler": DormandPrince(rtol=1e-6, atol=1e-6),
        "shape": SHAPE,
        "guidance": NoGuidance(),
        "task": Generation(num_classes=num_classes),
        "latents": FlowexpLatents(),
        "batch_size": 4,
    }
    return Teacher(**{**given, **changes})


def manifest(maker, of: Teacher, *, ranges=((0, 19),), shard_size: int = 6, **changes):
    images, noise = maker.formats(of)
    given = {
        "teacher": {"run": "made", "checkpoint": "last", "sha256": "0", "weights": "raw"},
        "start": type(maker).__name__,
        "sampler": "exact",
        "guidance": "none",
        "labels": maker.labels_law(of),
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


def written(folder: FilePath, *, maker=None, of: Teacher | None = None, **changes) -> PairStore:
    maker, of = maker or FromNoise(), of or teacher()
    write_store(
        folder,
        manifest=manifest(maker, of, **changes),
        config={"sampler": {"steps": 3}, "run": "made"},
        make=lambda members: maker.make(of, members),
    )
    return PairStore.open(folder)


def content(folder: FilePath) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}
