"""A model in one file: the same outputs, and nothing but flowexp's own classes."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from flowexp.errors import UsageError
from flowexp.models import FlowModel
from flowexp.networks import SongUNet
from flowexp.parameterizations import EDMPreconditioning
from flowexp.paths import VE, Path
from flowexp.runs.exported import load_exported, write_exported

CONFIG = {
    "path": {
        "_target_": "flowexp.paths.Path",
        "D": math.inf,
        "source": None,
        "schedule": {"_target_": "flowexp.paths.VE", "t_min": 0.002, "t_max": 80.0},
    },
    "network": {
        "_target_": "flowexp.networks.songunet.SongUNet",
        "img_resolution": 8,
        "in_channels": 3,
        "out_channels": 3,
        "model_channels": 8,
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "attn_resolutions": [4],
    },
    "parameterization": {"_target_": "flowexp.parameterizations.EDMPreconditioning"},
    "trainer": {"_target_": "not.exported"},
}


@pytest.fixture
def network():
    torch.manual_seed(0)
    arguments = {k: v for k, v in CONFIG["network"].items() if k != "_target_"}
    net = SongUNet(**arguments).to(memory_format=torch.channels_last)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


def write(file, network, *, facts=None, **config):
    return write_exported(
        file,
        network.state_dict(),
        config={**CONFIG, **config},
        shape=(3, 8, 8),
        facts={"weights": "main", **(facts or {})},
    )


def test_classes_without_images_are_remembered(network, tmp_path):
    file = write(tmp_path / "a.safetensors", network, facts={"classes_without_images": "[0, 4]"})
    assert load_exported(file, device="cpu").task.classes_without_images == [0, 4]
    assert load_exported(write(file, network), device="cpu").task.classes_without_images == []


@pytest.mark.parametrize("dropped", [True, False, None])
def test_whether_labels_were_dropped_is_remembered(network, tmp_path, dropped):
    facts = {"labels_dropped": json.dumps(dropped)}
    file = write(tmp_path / "a.safetensors", network, facts=facts)
    assert load_exported(file, device="cpu").model.labels_dropped is dropped


def test_the_same_outputs_bit_for_bit(network, tmp_path):
    file = write(tmp_path / "main.safetensors", network)
    loaded = load_exported(file, device="cpu").model
    model = FlowModel(Path(VE()), network=network, parameterization=EDMPreconditioning())
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.5, 7.0], dtype=torch.float64)
    with torch.inference_mode():
        # channels-last convolutions round differently, so the original runs in plain layout
        network.to(memory_format=torch.contiguous_format)
        assert torch.equal(loaded.velocity(x, t), model.velocity(x, t))
    assert loaded.path.schedule.t_max == 80.0
    assert not loaded.network.training
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["weights"] == "main"
    assert "trainer" not in json.loads(metadata["config"])


def test_what_samples_it_comes_along(network, tmp_path):
    sampler = {
        "_target_": "flowexp.samplers.Euler",
        "steps": 3,
        "time_grid": {"_target_": "flowexp.samplers.Natural"},
    }
    file = write(tmp_path / "main.safetensors", network, sampler=sampler)
    pipeline = load_exported(file, device="cpu")
    assert (type(pipeline.sampler).__name__, pipeline.sampler.steps) == ("Euler", 3)
    assert pipeline.sample(range(2)).shape == (2, 3, 8, 8)


def test_a_sampler_that_needs_more_than_the_file_stays_behind(network, tmp_path):
    refiner = {"_target_": "flowexp.runs.trained.TrainedModel", "run": "elsewhere"}
    sampler = {"_target_": "flowexp.samplers.VelocityBlocks", "refiner": refiner}
    file = write(tmp_path / "main.safetensors", network, sampler=sampler)
    assert type(load_exported(file, device="cpu").sampler).__name__ == "Heun"


def test_files_of_version_0_1_have_no_shape(network, tmp_path):
    file = write(tmp_path / "main.safetensors", network)
    with safe_open(file, framework="pt") as opened:
        metadata = {k: v for k, v in opened.metadata().items() if k != "shape"}
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    save_file(tensors, file, metadata=metadata)
    assert load_exported(file, device="cpu").shape == (3, 8, 8)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "flowexp.runs.manifest.subprocess.run",
        "flowexp.networks.base.torch.load",
        "flowexp.networks.base.Tensor",
        "flowexp.networks.NoSuchThing",
        "flowexp.training.HalfLifeEMA",
    ],
)
def test_no_other_class_is_built(network, target, tmp_path):
    schedule = {"_target_": target}
    file = write(tmp_path / "x.safetensors", network, path={**CONFIG["path"], "schedule": schedule})
    with pytest.raises(UsageError, match=target.replace(".", r"\.")):
        load_exported(file)


def test_changed_weights_are_refused(network, tmp_path):
    file = write(tmp_path / "x.safetensors", network)
    with safe_open(file, framework="pt") as opened:
        metadata, names = opened.metadata(), list(opened.keys())
        tensors = {name: opened.get_tensor(name) for name in names}
    tensors[names[0]] += 1e-3
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(UsageError, match="was changed"):
        load_exported(file)


def test_other_files_are_refused(network, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="not a file of flowexp export"):
        load_exported(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match="cannot be read"):
        load_exported(tmp_path / "y.safetensors")
    with pytest.raises(UsageError, match="there is no file"):
        load_exported(tmp_path / "z.safetensors")
