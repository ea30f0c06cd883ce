"""Models of finished runs as parts of other configs."""

import json
import shutil

import pytest
import torch
import yaml

from flowexp.autoencoders import Pixels
from flowexp.config.instantiate import instantiate
from flowexp.config.rules import check_rules
from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.networks.base import with_new_scalars
from flowexp.runs import RunDirectory, read_checkpoint
from flowexp.runs.assemble import build_model
from flowexp.runs.trained import (
    TrainedModel,
    parents_in,
    require_fitting_weights,
    require_same_latents,
    start_from,
)
from tests.e2e.command import TINY, flowexp


@pytest.fixture(scope="module")
def run(trained_once, tmp_path_factory):
    return shutil.copytree(trained_once, tmp_path_factory.mktemp("trained") / "teacher")


def stored(run):
    return yaml.safe_load((run / "config.yaml").read_text())


def asked(model, batch=2):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 1, 8, 8, generator=rng)
    with torch.no_grad():
        return model.velocity(x, torch.tensor(0.5), labels=torch.arange(batch))


def test_the_first_average_is_used_and_raw_on_request(run):
    content = read_checkpoint(run / "checkpoints/last.ckpt")
    name = next(iter(stored(run)["ema"]))
    averaged, raw = TrainedModel(str(run)), TrainedModel(str(run), weights="raw")
    for key, tensor in averaged.network.state_dict().items():
        assert torch.equal(tensor, content["ema"][name].get(key, content["network"][key]))
    for key, tensor in raw.network.state_dict().items():
        assert torch.equal(tensor, content["network"][key])
    assert not torch.equal(asked(averaged), asked(raw))
    assert averaged.origin.weights == name
    assert raw.origin.weights == "raw"
    assert averaged.origin.weights_sha256 == file_sha256(run / "checkpoints/last.ckpt")
    assert averaged.origin.calibrations == run / "calibrations"


def test_it_is_frozen_and_in_evaluation_mode(run):
    model = TrainedModel(str(run))
    assert not model.network.training
    assert not any(p.requires_grad for p in model.network.parameters())
    x = torch.zeros(1, 1, 8, 8, requires_grad=True)
    model.velocity(x, torch.tensor(0.5), labels=torch.zeros(1, dtype=torch.int64)).sum().backward()
    assert x.grad is not None
    assert not isinstance(model, torch.nn.Module)


def test_a_config_node_builds_it_and_is_counted_as_a_parent(run):
    node = {"_target_": "flowexp.runs.trained.TrainedModel", "run": str(run), "weights": "raw"}
    model = instantiate(node, key="objective.teacher")
    assert isinstance(model, TrainedModel)
    config = {"objective": {"teacher": node, "list": [dict(node)]}, "init": str(run)}
    config["init_weights"] = "raw"
    found = parents_in(config)
    assert set(found) == {"objective.teacher", "objective.list[0]", "init"}
    digest = file_sha256(run / "checkpoints/last.ckpt")
    assert {parent["sha256"] for parent in found.values()} == {digest}


def test_a_model_on_other_latents_is_refused(run, tmp_path):
    node = {"_target_": "flowexp.runs.trained.TrainedModel", "run": str(run), "key": "refiner"}
    config = {"objective": {"teacher": node}}
    require_same_latents(config, Pixels())
    other = shutil.copytree(run, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["autoencoder"] = {"identity": "autoencoder 1"}
    (other / "manifest.json").write_text(json.dumps(manifest))
    node["run"] = str(other)
    with pytest.raises(UsageError, match="latents of autoencoder 1, but this") as caught:
        require_same_latents(config, Pixels())
    assert caught.value.key == "refiner"


def test_without_a_run_the_check_and_the_constructor_say_what_to_give():
    node = {"_target_": "flowexp.runs.trained.TrainedModel", "run": None, "key": "refiner"}
    (problem,) = check_rules({"sampler": {"_target_": "a.FlowTurbo", "refiner": node}})
    assert problem.key == "refiner"
    assert "needs a trained model, but refiner is not given" in problem.text
    with pytest.raises(UsageError, match="teacher=outputs"):
        TrainedModel(None)
    with pytest.raises(UsageError, match="is not a run directory"):
        TrainedModel("nowhere")


def test_training_starts_from_a_run_and_says_so(run):
    command = ["train", *TINY, "optimizer.lr=1e-12", "dirs.run=child", f"init={run}"]
    done = flowexp(*command, cwd=run.parent)
    assert done.code == 0, done.err
    child = read_checkpoint(run.parent / "child/checkpoints/last.ckpt")["network"]
    parent = read_checkpoint(run / "checkpoints/last.ckpt")["network"]
    for key in parent:
        torch.testing.assert_close(child[key], parent[key], rtol=0, atol=1e-9)
    manifest = json.loads((run.parent / "child/manifest.json").read_text())
    assert manifest["parents"]["init"]["sha256"] == file_sha256(run / "checkpoints/last.ckpt")


def test_another_architecture_is_refused(run):
    with pytest.raises(UsageError, match="cannot start from"):
        start_from(torch.nn.Linear(2, 2), run=str(run), weights="raw")
    with pytest.raises(UsageError, match="no average"):
        start_from(TrainedModel(str(run)).network, run=str(run), weights="nope")


def test_another_width_is_refused_by_its_key(run):
    config = RunDirectory(run).config()
    config["network"] = {**config["network"], "model_channels": 16, "dropout": 0.1}
    network = build_model(config, device="meta").network
    for refuse in (start_from, require_fitting_weights):
        with pytest.raises(UsageError) as caught:
            refuse(network, run=str(run), weights="raw", config=config)
        assert caught.value.key == "init"
        assert "network.model_channels is 16 here and 8 in " in caught.value.problem
        assert "dropout" not in caught.value.problem
        assert str(caught.value.remedy).startswith("Set network.model_channels=8, or take the")
        assert f"from={run}" in str(caught.value.remedy)
    with pytest.raises(UsageError, match="Leave the network out"):
        start_from(network, run=str(run), weights="raw", config={**config, "parent": str(run)})
    same = build_model(RunDirectory(run).config(), device="meta").network
    require_fitting_weights(same, run=str(run), weights="raw", config=config)


def with_second_time(config, *, rank=None):
    """The config of a flow map around the model of a run."""
    rule = {"_target_": "flowexp.parameterizations.EulerJump"}
    flow_map = {
        "_target_": "flowexp.parameterizations.FlowMap",
        "of": config["parameterization"],
        "jump": rule,
        "conditions_on": ["gap"],
    }
    network = {**config["network"], "scalars": ["gap"]}
    if rank is not None:
        label_dim = network["label_dim"]
        lora = {"_target_": "flowexp.networks.low_rank.LowRank", "label_dim": label_dim}
        network = {**lora, "network": network, "rank": rank}
    return {**config, "parameterization": flow_map, "network": network}


@pytest.mark.parametrize("rank", [None, 2])
def test_a_flow_map_starts_as_the_velocity_of_weights_without_a_second_time(run, rank):
    """``u(x_t, t, r) = v(x_t, t)`` bit for bit, whatever r."""
    config = with_second_time(RunDirectory(run).config(), rank=rank)
    require_fitting_weights(
        build_model(config, device="meta").network, run=str(run), weights="raw", config=config
    )
    model = build_model(config)
    start_from(model.network, run=str(run), weights="raw", config=config)
    model.network.eval()
    old = TrainedModel(str(run), weights="raw")
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(4, 1, 8, 8, generator=rng, dtype=torch.float64)
    t = torch.tensor([0.9, 0.5, 0.3, 0.7], dtype=torch.float64)
    labels = torch.tensor([0, 1, -1, 2])
    with torch.no_grad():
        expected = old.velocity(x, t, labels=labels)
        for r in (t, 0.5 * t, torch.zeros_like(t)):
            assert torch.equal(model.average_velocity(x, t, r, labels=labels), expected)
        assert torch.equal(model.velocity(x, t, labels=labels), expected)


def test_only_the_second_time_may_be_new(run):
    """A width that differs, and an embedding of which a part is stored, are refused as ever."""
    config = with_second_time(RunDirectory(run).config())
    wider = {**config, "network": {**config["network"], "model_channels": 16}}
    with pytest.raises(UsageError, match="model_channels is 16 here and 8 in") as caught:
        start_from(build_model(wider).network, run=str(run), weights="raw", config=wider)
    assert "scalars" not in caught.value.problem
    network = build_model(config).network
    own = network.state_dict()
    new = [name for name in own if name.startswith("scalar_embedding.")]
    stored_part = {name: own[name] for name in own if name != new[0]}
    assert with_new_scalars(network, stored_part, own).keys() == stored_part.keys()
    without_any = {name: own[name] for name in own if name not in new}
    assert with_new_scalars(network, without_any, own).keys() == own.keys()
