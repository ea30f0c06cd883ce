"""train run= and from= take their groups from a run; what does not go together is said by keys."""

import json

import pytest
import yaml

from flowexp.config.check import check
from flowexp.config.differences import in_words, network_differences
from flowexp.config.stored import PAIRS_FORMAT
from flowexp.runs import RunDirectory
from flowexp.tree import leaves, without
from tests.e2e.command import TINY

FLOW = (
    "experiment=fashion10k/rectified_flow",
    "network.model_channels=16",
    "trainer.max_kimg=4",
    "augmentation=none",
)


def stored(overrides, at="R"):
    checked = check("train", [*overrides])
    manifest = {"choices": checked.choices}
    RunDirectory.start(at, config=checked.sound(), overrides=overrides, manifest=manifest)
    return checked.config


@pytest.fixture(autouse=True)
def flow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return stored(FLOW)


def differences(a, b):
    a, b = (dict(leaves(without(config, ("dirs", "run", "parent")))) for config in (a, b))
    return {key for key in a.keys() | b.keys() if a.get(key, "-") != b.get(key, "-")}


def problems(*overrides, verb="train", **more):
    return [str(problem) for problem in check(verb, [*overrides], **more).problems]


def test_a_run_is_its_own_config(flow):
    config = check("train", ["run=R"]).sound()
    assert differences(config, flow) == set()
    assert config["dirs"]["run"] == "R"


def test_a_new_run_from_it_differs_in_where_it_starts(flow):
    config = check("train", ["parent=R"]).sound()
    assert differences(config, flow) == {"init"}
    assert config["init"] == "R"
    assert config["dirs"]["run"] != "R"


@pytest.mark.parametrize("start", ["run=R", "parent=R"])
def test_what_an_option_derived_follows_again(start):
    longer = check("train", [start, "trainer.max_kimg=9"]).sound()
    assert longer["lr_schedule"]["end_kimg"] == 9
    kept = check("train", [start, "trainer.max_kimg=9", "lr_schedule.end_kimg=4"]).sound()
    assert kept["lr_schedule"]["end_kimg"] == 4


def test_what_was_given_explicitly_does_not_follow():
    stored([*FLOW, "lr_schedule.end_kimg=4"], at="Q")
    config = check("train", ["run=Q", "trainer.max_kimg=9"]).sound()
    assert config["lr_schedule"]["end_kimg"] == 4


def test_an_experiment_decides_all_but_the_model(flow):
    given = ["parent=R", "experiment=fashion10k/reflow", "pairs=P"]
    checked = check("train", given)
    config, alone = checked.sound(), check("train", [*given[1:], "init=R"])
    for group in ("dataset", "path", "network", "parameterization"):
        assert config[group] == flow[group]
    for group in ("coupling", "timestep", "optimizer", "ema", "trainer", "sampler"):
        assert config[group] == alone.config[group]
    (remark,) = checked.remarks
    assert "network.model_channels=32 (16)" in remark
    said = check("train", [*given, "network.dropout=0.5", "optimizer.lr=3e-4"]).sound()
    assert said["network"] == {**flow["network"], "dropout": 0.5}
    assert said["optimizer"]["lr"] == 3e-4


@pytest.mark.parametrize(
    ("overrides", "key"),
    [(["path=vp"], "path.schedule"), (["parameterization=noise"], "parameterization")],
)
def test_weights_keep_their_meaning_unless_it_is_said(overrides, key):
    (problem, *_) = problems("parent=R", *overrides)
    assert problem.startswith(f"{key}: R was trained with ")
    assert "add init=R to use them anyway" in problem
    checked = check("train", ["parent=R", *overrides, "init=R"])
    assert [p for p in checked.problems if p.key == key] == []
    assert any(remark.startswith(f"{key}: ") for remark in checked.remarks)


def test_init_warns_where_a_default_means_something_else(flow):
    checked = check("train", ["init=R", "network.model_channels=16"])
    assert checked.problems == []
    (remark,) = checked.remarks
    assert "VelocityPrediction" in remark
    assert "EDMPreconditioning" in remark


def test_pairs_and_runs_of_another_shape_are_refused_before_data_is_sought(tmp_path):
    (tmp_path / "P").mkdir()
    (tmp_path / "P" / "manifest.json").write_text(
        json.dumps({"format": PAIRS_FORMAT, "shape": [1, 28, 28]})
    )
    found = problems("experiment=cifar10/rfpp_a", "pairs=P", "init=R")
    assert len(found) == 2
    assert found[0].startswith("init: R was trained on 1x28x28, but the dataset here is 3x32x32.")
    assert found[1].startswith("pairs: the pairs in P are 1x28x28, but the dataset here is 3x32x32")
    assert problems("experiment=fashion10k/reflow", "pairs=P", "init=null") == []
    found = problems("experiment=cifar10/rfpp_a", "pairs=nothere", "init=null")
    assert found == []  # said elsewhere


@pytest.mark.parametrize(
    ("dataset", "words"),
    [("digits", "digits is 1x8x8, 10 classes"), ("cifar10", "cifar10 is 3x32x32, 10 classes"),
     ("moons", "moons is points of 2 dimensions")],
)  # fmt: skip
def test_a_network_is_held_against_data_of_its_own_shape(dataset, words):
    (problem,) = problems("run=R", f"dataset={dataset}", verb="eval")
    assert problem.startswith("dataset: R was trained on fashion10k (1x28x28, 10 classes), but ")
    assert words in problem
    assert "dataset=fashion_mnist" in problem
    assert problems("run=R", "dataset=fashion_mnist", verb="eval") == []


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["run=R", "parent=R"], "from"),
        (["run=R", "dirs.run=x"], "dirs.run"),
        (["run=R", "experiment=fashion10k/edm"], "experiment"),
        (["run=nothere"], "run"),
        (["parent=nothere"], "from"),
        (["run=R", "trainer.max_kmig=3"], "trainer.max_kmig"),
    ],
)
def test_wrong_starts(overrides, key):
    assert any(problem.startswith(f"{key}: ") for problem in problems(*overrides))


def test_an_option_that_came_after_the_run_can_be_given(flow):
    file = RunDirectory("R").config_file
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    del config["trainer"]["threads"]
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert "threads" not in check("train", ["run=R"]).sound()["trainer"]
    assert check("train", ["run=R", "trainer.threads=2"]).sound()["trainer"]["threads"] == 2
    (problem,) = problems("run=R", "trainer.thread=2")
    assert problem.startswith("trainer.thread: ")


def test_two_runs_are_named_in_no_way_twice():
    (problem,) = problems("run=R,R")
    assert "Name one run" in problem
    (problem,) = problems("run=R", "parent=R")
    assert problem.startswith("from: ")
    (problem,) = problems("parent=R", "dataset=digits", "network.model_channels=8")
    assert problem.startswith("dataset: R was trained on fashion10k")


def test_a_sweep_goes_on_with_nothing():
    (problem,) = problems("run=R", "trainer.max_kimg=5,7", multirun=True)
    assert problem.startswith("run: ")
    assert problems("parent=R", "seed=1,2", multirun=True) == []


@pytest.mark.parametrize("start", ["run=S", "parent=S"])
def test_a_strangers_part_is_not_built(flow, tmp_path, start):
    config = {**flow, "objective": {"_target_": "os.system", "command": "true"}}
    stored(FLOW, at="S")
    (tmp_path / "S/config.yaml").write_text(yaml.safe_dump(config))
    (problem,) = problems(start)
    assert problem.startswith("objective")
    assert "os.system" in problem


def test_networks_differ_by_keys(flow):
    wide = {"network": {**flow["network"], "model_channels": 64, "dropout": 0.3}}
    found = network_differences(wide, flow)
    assert found == {"network.model_channels": (64, 16)}
    assert in_words(found, run="R") == "network.model_channels is 64 here and 16 in R"
    other = check("train", ["network=dit"]).config
    assert in_words(network_differences(other, flow), run="R") == (
        "network is DiT here and UNet in R"
    )
    low_rank = {"network": {"_target_": "flowexp.networks.low_rank.LowRank", **wide}}
    assert list(network_differences(low_rank, flow)) == ["network.network.model_channels"]


def test_tiny_digits_go_on_too():
    stored(TINY, at="T")
    assert check("train", ["run=T", "trainer.max_kimg=1"]).problems == []


FLOW_MAP = ["parent=R", "parameterization=average_velocity", "timestep=sorted", "sampler=flow_map"]


@pytest.mark.parametrize("start", [["objective=meanflow"], ["experiment=fashion10k/meanflow"]])
def test_the_network_of_a_run_gets_the_second_time_as_an_input(start):
    """The network stays that of the run; its scalars follow the parameterization."""
    checked = check("train", [*FLOW_MAP, *start])
    assert [str(problem) for problem in checked.problems] == []
    config = checked.sound()
    assert config["network"]["scalars"] == config["parameterization"]["conditions_on"] == ["gap"]
    assert config["network"]["model_channels"] == 16
    assert "scalars" not in " ".join(checked.remarks)
    given = check("train", [*FLOW_MAP, *start, "network.scalars=[end]"]).problems
    assert [problem.key for problem in given] == ["network.scalars"]


def test_a_flow_map_gives_the_same_meaning_to_weights_of_what_it_is_around():
    start = ["experiment=fashion10k/meanflow", "init=R", "network.model_channels=16"]
    assert check("train", start).remarks == []
    other = "parameterization@parameterization.of=edm"
    (remark,) = check("train", [*start, other]).remarks
    assert remark.startswith("parameterization.of: R was trained with VelocityPrediction; with EDM")
    (problem,) = check("train", [*FLOW_MAP, "objective=meanflow", other]).problems
    assert problem.key == "parameterization.of"


def test_derivatives_refuse_networks_that_they_cannot_differentiate():
    start = ["experiment=fashion10k/meanflow", "trainer.compile=true"]
    (problem,) = check("train", start).problems
    assert problem.key == "trainer.compile"
    assert "objective/leg/derivative=difference" in problem.remedy
    assert check("train", [*start, "objective/leg/derivative=difference"]).problems == []
    assert check("train", [*start, "objective=split_mean_flow"]).problems == []
    lower = ["experiment=fashion10k/meanflow", "trainer.precision=bf16-mixed"]
    assert check("train", lower).problems == []
    (problem,) = check("train", [*lower, "objective/leg/derivative=difference"]).problems
    assert problem.key == "trainer.precision"


@pytest.mark.parametrize("network", ["diffusers_unet", "lora"])
def test_a_network_without_scalars_is_no_flow_map(network):
    found = check("train", ["experiment=fashion10k/meanflow", f"network={network}"]).problems
    expected = ["it takes no scalars, but FlowMap conditions the network on gap."]
    assert [problem.text for problem in found] == ([] if network == "lora" else expected)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["teacher=R"], "teacher"),
        (["parent=R", "teacher=R"], "teacher"),
        (["experiment=fashion10k/split_meanflow", "teacher=R"], "teacher"),
        (["experiment=fashion10k/split_meanflow", "objective=split_mean_flow_teacher",
          "teacher=R"], None),
        (["teacher_weights=raw"], "teacher_weights"),
        (["init_weights=raw"], "init_weights"),
        (["init=R", "init_weights=raw", *FLOW], None),
    ],
)  # fmt: skip
def test_a_teacher_or_weights_that_nothing_uses_are_refused(overrides, key):
    found = [problem.key for problem in check("train", overrides).problems]
    assert found == ([] if key is None else [key])


def test_another_teacher_than_that_of_the_run_needs_its_objective_again():
    start = ["experiment=fashion10k/split_meanflow", "network.model_channels=16"]
    stored([*start, "objective=split_mean_flow_teacher", "teacher=R"], at="S")
    stored(FLOW, at="T")
    assert check("train", ["parent=S"]).problems == []
    (problem,) = check("train", ["parent=S", "teacher=T"]).problems
    assert problem.text == "no part of this training uses T."
    again = check("train", ["parent=S", "teacher=T", "objective=split_mean_flow_teacher"]).sound()
    assert again["objective"]["diagonal"]["teacher"]["run"] == "T"
