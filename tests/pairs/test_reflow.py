"""Matched pairs can be learned without error; shuffled ones leave the floor of strangers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flowexp.couplings import StoredPairs
from flowexp.data import BatchStream, ImageArrays
from flowexp.data.partners import StoredPartners
from flowexp.paths import Linear, Path
from flowexp.timesteps import Uniform
from flowexp.training.inputs import TrainingDraws

SPREAD = 0.5


def straight_pairs(n=4096):
    e = np.random.default_rng(0).standard_normal((n, 2)).astype(np.float32)
    return ImageArrays.of(SPREAD * e, None, num_classes=0, name="made", partners=StoredPartners(e))


def floors(arrays):
    """Smallest mean squared error of a field at fixed times; here the best field is linear."""
    draws = TrainingDraws(
        Path(Linear()), coupling=StoredPairs(), timestep=Uniform(), conditional=False, seed=0
    )
    stream = BatchStream(arrays, batch_size=len(arrays), seed=0)
    pairs, _ = draws(stream.batch(0), 0)
    x, e = pairs.x.double(), pairs.e.double()
    found = {}
    for t in (0.2, 0.5, 0.8):
        x_t, v = (1 - t) * x + t * e, e - x
        slope = (x_t * v).mean() / x_t.square().mean()
        found[t] = float((v - slope * x_t).square().mean())
    return found


def test_matched_pairs_have_no_floor_and_shuffled_ones_the_one_of_strangers():
    """Floor of independent normals: Var(e - x | x_t) = s^2 / ((1 - t)^2 s^2 + t^2)."""
    matched = straight_pairs()
    order = np.random.default_rng(1).permutation(len(matched))
    shuffled = replace(matched, partners=matched.partners.select(order))
    before, after = floors(matched), floors(shuffled)
    for t in before:
        exact = SPREAD**2 / ((1 - t) ** 2 * SPREAD**2 + t**2)
        assert before[t] < 1e-12
        # 8192 values: about 1.6 % of standard error each way
        assert after[t] == pytest.approx(exact, rel=0.08)


def test_both_sides_flip_or_the_floor_rises():
    """An equivariant teacher's pairs stay pairs when mirrored; half-mirrored ones do not."""
    rng = np.random.default_rng(0)
    e = rng.standard_normal((512, 1, 2, 4)).astype(np.float32)
    arrays = ImageArrays.of(
        (0.5 * e).astype(np.float32), None, num_classes=0, name="m", partners=StoredPartners(e)
    )
    batch = BatchStream(arrays, batch_size=512, seed=0, hflip=True).batch(0)
    assert torch.allclose(batch.images, 0.5 * batch.partner)
    flipped = (batch.images[..., 0] != 0.5 * torch.from_numpy(e)[batch.index][..., 0]).flatten(1)
    assert 0.3 < float(flipped.any(1).float().mean()) < 0.7
    one_sided = batch.images.flip(-1)
    assert float((one_sided - 0.5 * batch.partner).square().mean()) > 0.1
