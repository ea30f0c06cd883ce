"""The floor of an autoencoder: real images, encoded and decoded."""

import numpy as np
import torch

from flowexp.autoencoders import PerChannel
from flowexp.data import ImageArrays
from flowexp.evaluation.reconstructed import reconstructed
from tests.autoencoders.tiny import Random
from tests.evaluation.tiny import metric, pipeline

REAL = ImageArrays.of(
    np.random.default_rng(0).integers(0, 256, (40, 1, 4, 4), dtype=np.uint8),
    None,
    num_classes=0,
    name="tiles/heldout",
)


def floor(seed, cache):
    autoencoder = Random(seed=seed, scaling=PerChannel(mean=[0.0, 0.0], std=[1.0, 1.0]))
    on_latents = pipeline(shape=(2, 2, 2), autoencoder=autoencoder, batch_size=16)
    decoded = reconstructed(on_latents, REAL, count=30)
    measured = metric()
    measured.prepare(REAL, cache_dir=cache)
    measured.reconstruction(decoded)
    accumulator = measured.accumulator()
    accumulator.update(torch.from_numpy(REAL.images))
    (record,) = accumulator.compute()
    assert record.extra["reconstruction_count"] == 30
    return record.extra["reconstruction"]


def test_features_in_the_cache_are_those_of_one_autoencoder(tmp_path) -> None:
    alone = [floor(seed, None) for seed in (0, 1)]
    assert alone[0] != alone[1]
    assert [floor(seed, tmp_path) for seed in (0, 1, 0)] == [*alone, alone[0]]


def test_without_an_autoencoder_there_is_none() -> None:
    assert reconstructed(pipeline(), REAL, count=30) is None
