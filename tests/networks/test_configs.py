"""Every file of conf/network builds its class; sizes are shrunk, nothing else changes."""

import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from flowexp.config.signatures import signature_of
from flowexp.networks import Network

FOLDER = Path(__file__).parents[2] / "conf" / "network"
# composed of other networks; built in test_caption.py, test_easycontrol.py and test_low_rank.py
COMPOSED = {"captioned", "easycontrol", "lora"}
FILES = sorted(file for file in FOLDER.glob("*.yaml") if file.stem not in COMPOSED)
# built against a stand-in in tests/networks/test_diffusers_unet.py where it is not installed
ABSENT = set() if find_spec("diffusers") else {"diffusers_unet"}
DATASETS = {
    "fashion": {"resolution": 28, "channels": 1, "num_classes": 10},
    "cifar10": {"resolution": 32, "channels": 3, "num_classes": 10},
    "imagenet": {"resolution": 64, "channels": 3, "num_classes": 1000},
    "toy": {"dim": 2, "num_classes": 8},
}
TINY = {"model_channels": 32, "num_blocks": 1, "hidden_size": 16, "depth": 1, "hidden": 16}


def resolve(file, dataset):
    none = OmegaConf.load(FOLDER.parent / "autoencoder" / "none.yaml")
    config = OmegaConf.create(
        {"dataset": DATASETS[dataset], "autoencoder": none, "network": OmegaConf.load(file)}
    )
    return OmegaConf.to_container(config.network, resolve=True)


def target(arguments):
    module, name = arguments.pop("_target_").rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def build(file, dataset, **overrides):
    arguments = resolve(file, dataset)
    made = target(arguments)
    return made(**arguments | {k: v for k, v in overrides.items() if k in arguments})


def suitable(file):
    return ["toy"] if file.stem == "mlp" else ["fashion", "cifar10"]


CASES = [(file, data) for file in FILES if file.stem not in ABSENT for data in suitable(file)]


@pytest.mark.parametrize(("file", "dataset"), CASES, ids=[f"{f.stem}-{d}" for f, d in CASES])
def test_tiny_version_runs(file, dataset):
    network = build(file, dataset, **TINY)
    assert isinstance(network, Network)
    size = DATASETS[dataset].get("resolution")
    x = torch.randn(2, network.in_channels, *([size, size] if size else []))
    labels = torch.tensor([1, -1]) if network.label_dim else None
    assert network(x, torch.tensor([-1.0, 0.5]), labels).shape == x.shape


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_file_names_every_argument_and_starts_with_a_sentence(file):
    arguments = resolve(file, suitable(file)[0])
    parameters = set(signature_of(arguments.pop("_target_")).parameters)
    assert set(arguments) == parameters
    assert file.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("stem", "dataset", "millions"),
    [
        ("ddpmpp", "cifar10", 55.7),
        ("ncsnpp", "cifar10", 56.4),
        ("arflow", "fashion", 10.3),
        ("dit", "fashion", 9.7),
        ("unet", "fashion", 0.57),
        ("kl_autoencoder", "fashion", 0.65),
        ("mlp", "toy", 0.23),
        ("adm", "imagenet", 296.0),
        ("edm2", "imagenet", 280.2),
    ],
)
def test_parameter_count_in_the_comment_is_right(stem, dataset, millions):
    file = FOLDER / f"{stem}.yaml"
    with torch.device("meta"):
        network = build(file, dataset)
    count = sum(p.numel() for p in network.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.02)
    assert f"{millions:.4g} M" in file.read_text()
