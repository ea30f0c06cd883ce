"""Draws and batches of a step do not depend on how the work is shared or where a run began."""

import threading
import time

import pytest
import torch

from flowexp.augmentations import EDMAugmentation
from flowexp.couplings import AnnealedPairs, Independent, LinearAnnealing, StoredPairs
from flowexp.data import BatchStream, DataBatch
from flowexp.paths import VE, Linear, Path
from flowexp.timesteps import Stratified, Uniform
from flowexp.training.inputs import BatchFeed, TrainingDraws, seed_global
from tests.training.tiny import Tiles


def stream() -> BatchStream:
    return BatchStream(Tiles().train(), batch_size=8, seed=0, hflip=True)


def draws(
    path: Path, *, rank: int = 0, world_size: int = 1, conditional: bool = True
) -> TrainingDraws:
    return TrainingDraws(
        path,
        coupling=Independent(),
        timestep=Stratified(Uniform()),
        conditional=conditional,
        seed=3,
        rank=rank,
        world_size=world_size,
    )


@pytest.mark.parametrize("path", [Path(Linear()), Path(Linear(), D=4.0)])
def test_processes_share_the_draws_of_one(path: Path) -> None:
    whole, t = draws(path)(stream().batch(5), 5)
    for rank in range(4):
        batch = stream().batch(5, rank=rank, world_size=4)
        part, times = draws(path, rank=rank, world_size=4)(batch, 5)
        rows = slice(2 * rank, 2 * rank + 2)
        assert torch.equal(part.x, whole.x[rows])
        assert torch.equal(part.e, whole.e[rows])
        assert torch.equal(times, t[rows])
        assert torch.equal(part.conditions["labels"], whole.conditions["labels"][rows])


def test_steps_and_streams_are_independent() -> None:
    of_step = draws(Path(Linear()))
    first, t_first = of_step(stream().batch(5), 5)
    again, t_again = of_step(stream().batch(5), 5)
    other, t_other = of_step(stream().batch(5), 6)
    assert torch.equal(first.e, again.e)
    assert torch.equal(t_first, t_again)
    assert not torch.equal(first.e, other.e)
    assert not torch.equal(t_first, t_other)
    assert t_first.dtype == torch.float64


def test_labels_are_kept_from_unconditional_networks() -> None:
    pairs, _ = draws(Path(VE()), conditional=False)(stream().batch(0), 0)
    assert pairs.conditions == {}


def test_the_global_seed_is_that_of_torch() -> None:
    seed_global(12345678901, torch.device("cpu"))
    ours = torch.rand(4)
    torch.manual_seed(12345678901)
    assert torch.equal(ours, torch.rand(4))


@pytest.mark.parametrize("ahead", [False, True])
def test_the_feed_gives_the_steps_asked_for(ahead: bool) -> None:
    feed = BatchFeed(stream(), start=3, stop=9, ahead=ahead)
    batches = list(feed)
    assert len(feed) == len(batches) == 6
    for step, batch in enumerate(batches, start=3):
        expected = stream().batch(step)
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.index, expected.index)


def test_a_failure_while_fetching_ahead_reaches_the_training() -> None:
    class Broken(BatchStream):
        def batch(self, step: int, **_: int) -> DataBatch:
            if step == 2:
                raise OSError("disk gone")
            return super().batch(step)

    broken = Broken(Tiles().train(), batch_size=8, seed=0)
    feed = iter(BatchFeed(broken, start=0, stop=5, ahead=True))
    assert len(next(feed)) == len(next(feed)) == 8
    with pytest.raises(OSError, match="disk gone"):
        next(feed)


def test_a_feed_that_is_left_ends_its_thread() -> None:
    before = threading.active_count()
    feed = iter(BatchFeed(stream(), start=0, stop=1000, ahead=True))
    next(feed)
    feed.close()
    deadline = time.monotonic() + 5.0
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


class Recorder(Independent):
    """Remembers what it was told."""

    needs_partner = True

    def pair(self, x, e, conditions, *, rng, partner=None, images_seen=0):
        self.told = partner, images_seen
        return super().pair(x, e, conditions, rng=rng)


def test_a_coupling_is_told_partners_and_images_seen() -> None:
    coupling = Recorder()
    of_step = TrainingDraws(
        Path(Linear()), coupling=coupling, timestep=Uniform(), conditional=False, seed=0,
        rank=1, world_size=2,
    )  # fmt: skip
    batch = stream().batch(7, rank=1, world_size=2)
    partner = torch.randn(batch.images.shape)
    of_step(DataBatch(batch.images, None, batch.index, partner), 7)
    assert coupling.told[0] is partner
    assert coupling.told[1] == 56


def test_partners_cannot_follow_an_augmentation_nor_another_law() -> None:
    parts = {"timestep": Uniform(), "conditional": False, "seed": 0}
    with pytest.raises(ValueError, match="Use augmentation=none"):
        TrainingDraws(
            Path(Linear()),
            coupling=StoredPairs(),
            augmentation=EDMAugmentation(p=0.1, xflip=1.0),
            **parts,
        )
    annealed = AnnealedPairs(LinearAnnealing(1.0))
    with pytest.raises(ValueError, match="StudentT"):
        TrainingDraws(Path(Linear(), D=4.0), coupling=annealed, **parts)
