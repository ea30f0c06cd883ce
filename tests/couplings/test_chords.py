"""The coupling along stored chords: what a batch holds, and what is refused."""

import json

import numpy as np
import pytest
import torch

from flowexp.augmentations import NoAugmentation
from flowexp.couplings import Chords, Independent
from flowexp.data import DataBatch
from flowexp.errors import UsageError
from flowexp.paths import VP, Linear, Path
from flowexp.seeding import generator
from flowexp.timesteps import Uniform
from flowexp.training.inputs import TrainingDraws
from tests.refusals import refusal_of

SHAPE = (1, 2, 2)
TIMES = np.array([1.0, 0.5, 0.2])
COUNT = 5


def store(run, name="even", *, labels=True, path=None):
    """Chords of which every number tells its row: x = 10 i + m, e = -x."""
    folder = run / "calibrations" / "chords"
    folder.mkdir(parents=True, exist_ok=True)
    number = 10 * np.arange(COUNT)[:, None] + np.arange(3)[None, :]
    x = np.broadcast_to(number[..., None, None, None], (COUNT, 3, *SHAPE)).astype(np.float32)
    rest = {"labels": np.arange(COUNT)} if labels else {}
    np.savez(folder / f"{name}.npz", x=x, e=-x, t=TIMES, **rest)
    identity = {"path": repr(path or Path(Linear()))}
    (folder / f"{name}.json").write_text(json.dumps({"identity": identity, "settings": {}}))
    return str(run)


def pair(coupling, *, size=600, shape=SHAPE, labels=True, seed=0):
    x, e = torch.zeros(size, *shape), torch.ones(size, *shape)
    conditions = {"labels": torch.full((size,), 99)} if labels else {}
    return coupling.pair(x, e, conditions, rng=generator(seed, "coupling"))


def test_rows_are_stored_chords_with_their_times_and_labels(tmp_path):
    pairs = pair(Chords(run=store(tmp_path)))
    number = pairs.x[:, 0, 0, 0].round().long()
    i, m = number // 10, number % 10
    assert torch.equal(pairs.x, number[:, None, None, None].expand(600, *SHAPE).float())
    assert torch.equal(pairs.e, -pairs.x)
    assert torch.equal(pairs.t, torch.from_numpy(TIMES)[m])
    assert torch.equal(pairs.conditions["labels"], i)
    counts = torch.bincount(3 * i + m, minlength=15)
    # 600 draws over 15 chords: mean 40, deviation 6.1; +-5 of them, with a fixed seed
    assert 9 < int(counts.min())
    assert int(counts.max()) < 71


def test_the_same_generator_draws_the_same_and_another_draws_others(tmp_path):
    coupling = Chords(run=store(tmp_path))
    assert torch.equal(pair(coupling).x, pair(coupling).x)
    assert not torch.equal(pair(coupling).x, pair(coupling, seed=1).x)


def test_an_unconditional_network_learns_chords_of_all_classes(tmp_path):
    assert pair(Chords(run=store(tmp_path)), labels=False).conditions == {}


def test_chords_that_do_not_fit_the_training_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"shape \(1, 2, 2\), the data \(3, 4, 4\)"):
        pair(Chords(run=store(tmp_path)), shape=(3, 4, 4))
    bare = Chords(run=store(tmp_path / "bare", labels=False))
    with pytest.raises(UsageError, match="have none"):
        pair(bare)
    assert pair(bare, labels=False).conditions == {}
    assert refusal_of(bare, path=Path(Linear())) is None
    assert "VP" in refusal_of(bare, path=Path(VP()))
    assert refusal_of(Independent(), path=Path(VP())) is None


def test_one_of_several_must_be_named(tmp_path):
    with pytest.raises(UsageError, match="no run is given"):
        Chords(run=None)
    with pytest.raises(UsageError, match="there are no chords in"):
        Chords(run=str(tmp_path))
    run = store(tmp_path)
    store(tmp_path, "best")
    assert Chords(run=run, name="best").file.name == "best.npz"
    with pytest.raises(UsageError, match="several chords"):
        Chords(run=run)
    with pytest.raises(UsageError, match="no chords 'worst'"):
        Chords(run=run, name="worst")
    (tmp_path / "calibrations" / "chords" / "best.json").unlink()
    assert Chords(run=run).file.name == "even.npz"


class Mirrored(NoAugmentation):
    changes_images = True


def test_training_takes_the_times_of_the_chords(tmp_path):
    coupling = Chords(run=store(tmp_path))
    given = {"coupling": coupling, "timestep": Uniform(), "conditional": True, "seed": 0}
    batch = DataBatch(
        images=torch.zeros(8, *SHAPE, dtype=torch.uint8),
        labels=torch.full((8,), 3),
        index=torch.arange(8),
    )
    pairs, t = TrainingDraws(Path(Linear()), **given)(batch, 0)
    assert torch.equal(t, pairs.t)
    assert set(t.tolist()) <= set(TIMES)
    with pytest.raises(ValueError, match="Mirrored changes images that Chords does not use"):
        TrainingDraws(Path(Linear()), **given, augmentation=Mirrored())
