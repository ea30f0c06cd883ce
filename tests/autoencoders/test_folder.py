"""An autoencoder from a run directory of ours, or from a folder of diffusers."""

import shutil
import sys

import pytest
import torch
import yaml

from flowexp.autoencoders import Factor
from flowexp.autoencoders.folder_facts import channels, resolution
from flowexp.autoencoders.kl import KLAutoencoder
from flowexp.errors import UsageError
from flowexp.runs.autoencoder_folder import FolderAutoencoder
from flowexp.runs.encoded_data import recorded, restore
from flowexp.runs.weights import write_checkpoint
from tests.autoencoders.test_diffusers_vae import GOLDEN
from tests.training.tiny import Tiles

NETWORK = {
    "img_resolution": 4,
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 2,
    "block_out_channels": [4, 4],
    "norm_num_groups": 2,
}
TARGET = "flowexp.autoencoders.kl.KLAutoencoder"


def network(seed: int) -> KLAutoencoder:
    torch.manual_seed(seed)
    return KLAutoencoder(**NETWORK).eval()


def store(folder, *, target: str = TARGET, raw: int = 0, averaged: int = 1) -> str:
    """A run directory with the initial weights of two seeds."""
    config = {"network": {"_target_": target, **NETWORK}, "ema": {"main": {"decay": 0.9}}}
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    ema = {"main": dict(network(averaged).named_parameters())}
    content = {"step": 1, "images": 1000, "network": network(raw).state_dict(), "ema": ema}
    (folder / "checkpoints").mkdir(exist_ok=True)
    write_checkpoint(folder / "checkpoints" / "last.ckpt", content)
    return str(folder)


def opened(folder: str, *, side: int = 4, image_channels: int = 1, **options) -> FolderAutoencoder:
    return FolderAutoencoder(
        folder,
        channels=channels(folder),
        resolution=resolution(folder, side),
        image_channels=image_channels,
        image_resolution=side,
        scaling=Factor(0.5),
        **options,
    )


@pytest.mark.parametrize(("weights", "seed"), [(None, 1), ("main", 1), ("raw", 0)])
def test_a_run_encodes_and_decodes_with_the_weights_that_are_named(tmp_path, weights, seed) -> None:
    ours = opened(store(tmp_path / "ae"), weights=weights)
    x = torch.rand(3, 1, 4, 4) * 2 - 1
    with torch.inference_mode():
        mean, _ = ours.encode(x)
        assert torch.allclose(mean, 0.5 * network(seed).posterior(x)[0], atol=1e-6)
        assert torch.allclose(ours.decode(mean), network(seed)(x, torch.zeros(3)), atol=1e-5)


def test_an_identity_is_that_of_the_weights(tmp_path) -> None:
    one = opened(store(tmp_path / "a")).identity()
    assert opened(store(tmp_path / "b", averaged=5)).identity() != one
    assert opened(str(tmp_path / "a"), weights="raw").identity() != one
    assert opened(store(tmp_path / "c", raw=5)).identity() != one
    assert opened(str(tmp_path / "a"), unit_range=True).identity() != one
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    assert opened(str(tmp_path / "moved")).identity() == one


def test_a_folder_of_diffusers() -> None:
    ours = opened(str(GOLDEN), side=7, image_channels=3)
    assert ours.shape((3, 7, 7)) == (2, 4, 4)
    with torch.inference_mode():
        mean, std = ours.encode(torch.zeros(2, 3, 7, 7))
        assert mean.shape == std.shape == (2, 2, 4, 4)
        assert ours.decode(mean).shape == (2, 3, 7, 7)
    assert ours.weights_identity().startswith("diffusers VAE, sha256 ")


def test_images_in_the_unit_range(tmp_path) -> None:
    folder = store(tmp_path / "ae")
    plain, unit = opened(folder), opened(folder, unit_range=True)
    x = torch.rand(2, 1, 4, 4)
    with torch.inference_mode():
        assert torch.allclose(unit.encode(2 * x - 1)[0], plain.encode(x)[0], atol=1e-6)
        y = plain.encode(x)[0]
        assert torch.allclose(unit.decode(y), 2 * plain.decode(y) - 1, atol=1e-5)


def test_a_strangers_run_executes_nothing(tmp_path, monkeypatch) -> None:
    (tmp_path / "planted.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\nclass KLAutoencoder: pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    ours = opened(store(tmp_path / "ae", target="planted.KLAutoencoder"))
    with pytest.raises(UsageError, match="planted"):
        ours.codec(torch.device("cpu"))
    assert not (tmp_path / "ran").exists()
    assert "planted" not in sys.modules


def test_what_is_no_autoencoder_is_named(tmp_path) -> None:
    folder = store(tmp_path / "ae", target="flowexp.networks.unet.UNet")
    with pytest.raises(UsageError, match="UNet, which is no autoencoder"):
        channels(folder)
    with pytest.raises(UsageError, match="no average 'other'"):
        opened(store(tmp_path / "b"), weights="other").codec(torch.device("cpu"))


def test_a_run_remembers_its_latents(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "cache"))
    folder = store(tmp_path / "ae")
    manifest = recorded(opened(folder), Tiles())
    again = opened(folder)
    restore(again, manifest, run="run")
    assert list(again.statistics.mean) == manifest["autoencoder"]["statistics"]["mean"]
    other = opened(store(tmp_path / "ae", averaged=7))
    with pytest.raises(UsageError, match="another autoencoder"):
        restore(other, manifest, run="run")
    with pytest.raises(UsageError, match="another autoencoder"):
        restore(other, {}, run="run")
