"""Latents: encoded once, refused when they are stale, drawn anew for every image and step."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from flowexp.autoencoders import Factor, PerChannel, Pixels
from flowexp.couplings import Independent
from flowexp.data import BatchStream, ImageArrays, gather_batch
from flowexp.errors import UsageError
from flowexp.paths import Linear, Path
from flowexp.timesteps import Uniform
from flowexp.training.inputs import TrainingDraws
from tests.autoencoders.tiny import Random
from tests.training.tiny import Tiles


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path))
    return tmp_path / "latents"


def entries(cache):
    return sorted(p for p in cache.iterdir() if p.is_dir())


class Other(Tiles):
    """The same pictures, cut off by a row and a column."""

    def __init__(self) -> None:
        super().__init__()
        self.shape, self.resolution = (1, 3, 3), 3

    def _read(self) -> ImageArrays:
        found = super()._read()
        images = np.ascontiguousarray(found.images[..., 1:, 1:])
        return ImageArrays.of(images, found.labels, num_classes=3, name="tiles")


def x_of(data: Tiles) -> torch.Tensor:
    return torch.from_numpy(data.train().images).float() / 127.5 - 1.0


def test_means_and_widths_are_those_of_the_encoder() -> None:
    ours = Random()
    arrays = ours.data(Tiles()).train()
    batch = gather_batch(arrays, np.arange(64))
    with torch.inference_mode():
        mean, std = ours.encode(x_of(Tiles()))
    assert torch.allclose(batch.images, mean, atol=1e-5)
    assert torch.allclose(batch.std, std, rtol=1e-4)
    assert arrays.labels.tolist() == Tiles().train().labels.tolist()
    assert ours.data(Tiles()).shape == (2, 2, 2)


def test_a_mirrored_item_is_the_latent_of_the_mirrored_image() -> None:
    ours = Random()
    arrays = ours.data(Tiles()).train()
    mirrored = np.arange(64) % 2 == 0
    batch = gather_batch(arrays, np.arange(64), mirrored=mirrored)
    x = x_of(Tiles())
    x[mirrored] = x[mirrored].flip(-1)
    with torch.inference_mode():
        mean, _ = ours.encode(x)
    assert torch.allclose(batch.images, mean, atol=1e-5)
    plain = gather_batch(arrays, np.arange(64)).images
    assert not torch.allclose(batch.images[::2], plain[::2].flip(-1), atol=1e-3)


def test_measured_channels_have_the_width_that_was_asked_for() -> None:
    ours = Random(scaling=PerChannel(multiplier=0.5))
    batch = gather_batch(ours.data(Tiles()).train(), np.arange(64))
    noise = torch.randn(200, *batch.std.shape, generator=torch.Generator().manual_seed(0))
    y = (batch.images + batch.std * noise).double()
    # 51,200 numbers per channel: the standard error of the width is about 0.3 % of it
    assert torch.allclose(y.std((0, 1, 3, 4)), torch.full((2,), 0.5).double(), rtol=0.05)
    assert torch.allclose(y.mean((0, 1, 3, 4)), torch.zeros(2).double(), atol=0.025)


def draws(*, rank: int = 0, world_size: int = 1, seed: int = 3) -> TrainingDraws:
    return TrainingDraws(
        Path(Linear()),
        coupling=Independent(),
        timestep=Uniform(),
        conditional=False,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )


def test_draws_match_the_moments_and_belong_to_seed_and_step() -> None:
    arrays = Random().data(Tiles()).train()
    stream = BatchStream(arrays, batch_size=8, seed=0)
    batch = stream.batch(0)
    first, again = (draws()(batch, 0)[0].x for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, draws()(batch, 1)[0].x)
    assert not torch.equal(first, draws(seed=4)(batch, 0)[0].x)
    count = 400
    n = torch.stack([(draws()(batch, i)[0].x - batch.images) / batch.std for i in range(count)])
    # 64 values: means within 4.5 and variances within 5.5 standard errors; false alarms below 1e-3
    assert n.mean(0).abs().max() < 4.5 / math.sqrt(count)
    assert (n.var(0) - 1.0).abs().max() < 5.5 * math.sqrt(2.0 / count)


def test_devices_share_the_draws_of_one() -> None:
    stream = BatchStream(Random().data(Tiles()).train(), batch_size=8, seed=0, hflip=True)
    whole = draws()(stream.batch(5), 5)[0].x
    for rank in range(2):
        part = draws(rank=rank, world_size=2)(stream.batch(5, rank=rank, world_size=2), 5)[0].x
        assert torch.equal(part, whole[4 * rank : 4 * rank + 4])


def test_the_mean_can_be_taken_instead() -> None:
    ours = Random(sample_posterior=False)
    batch = BatchStream(ours.data(Tiles()).train(), batch_size=8, seed=0).batch(0)
    assert batch.std is None
    assert torch.equal(draws()(batch, 0)[0].x, batch.images)


def test_an_entry_is_made_once_and_shared_by_scalings(cache) -> None:
    Random().data(Tiles()).train()
    (entry,) = entries(cache)
    before = (entry / "mean.npy").stat().st_mtime_ns
    Random(scaling=Factor(0.5)).data(Tiles()).train()
    assert entries(cache) == [entry]
    assert (entry / "mean.npy").stat().st_mtime_ns == before


def test_weights_size_and_range_have_entries_of_their_own(cache) -> None:
    prints = set()
    for ours, data in (
        (Random(), Tiles()),
        (Random(seed=1), Tiles()),
        (Random(side=3), Other()),
        (Random(unit_range=True), Tiles()),
    ):
        prints.add(ours.data(data).train().fingerprint)
    assert len(prints) == len(entries(cache)) == 4
    prints.add(Random(scaling=Factor(0.5)).data(Tiles()).train().fingerprint)
    assert len(prints) == 5


@pytest.mark.parametrize("what", ["content", "facts", "missing", "damaged"])
def test_a_stale_entry_is_refused(cache, what) -> None:
    Random().data(Tiles()).train()
    (entry,) = entries(cache)
    manifest = json.loads((entry / "manifest.json").read_text())
    if what == "content":
        stored = np.load(entry / "mean.npy")
        np.save(entry / "mean.npy", stored + 1)
    elif what == "facts":
        manifest["facts"]["encoder"] = "another"
        (entry / "manifest.json").write_text(json.dumps(manifest))
    elif what == "missing":
        (entry / "logvar.npy").unlink()
    else:
        (entry / "manifest.json").write_text("{")
    with pytest.raises(UsageError, match="refused") as error:
        Random().data(Tiles()).train()
    assert str(entry) in error.value.remedy
    shutil.rmtree(entry)
    assert len(Random().data(Tiles()).train()) == 64


def test_an_interrupted_encoder_leaves_no_entry(cache) -> None:
    class Interrupted(Random):
        calls = 0

        def moments(self, images):
            self.calls += 1
            if self.calls > 2:
                raise KeyboardInterrupt
            return super().moments(images)

    with pytest.raises(KeyboardInterrupt):
        Interrupted().data(Tiles()).train()
    assert entries(cache) == []
    assert len(Random().data(Tiles()).train()) == 64


def test_decoded_images_have_the_size_of_the_data() -> None:
    ours = Random(side=3)
    ours.data(Other()).train()
    with torch.inference_mode():
        mean, _ = ours.encode(x_of(Other()))
        images = ours.decode(mean)
        z, _ = ours.moments(x_of(Other()))
        raw = ours.made.decode(z)
    assert images.shape == (64, 1, 3, 3)
    assert torch.allclose(images, raw[..., :3, :3], atol=1e-4)


def test_no_autoencoder_changes_nothing() -> None:
    data, none = Tiles(), Pixels()
    x = torch.randn(2, 1, 4, 4)
    assert none.data(data) is data
    assert none.decode(x) is x
    assert none.shape((1, 4, 4)) == (1, 4, 4)
    assert none.identity() is None


def test_without_a_cache_it_is_said(monkeypatch) -> None:
    monkeypatch.setattr("flowexp.autoencoders.encoded.cache_dir", lambda: None)
    with pytest.raises(UsageError, match="no home"):
        Random().data(Tiles()).train()
