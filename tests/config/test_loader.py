"""What is composed once is what Hydra composes each time."""

import json

import pytest
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from flowexp.config import loader
from flowexp.config.check import check_job
from flowexp.config.hydra_internals import Loader
from flowexp.config.loader import RunAwareLoader, search_path, with_run
from flowexp.config.schema import register
from flowexp.config.sources import run_in


def plain(name, overrides, mode=RunMode.RUN):
    """Hydra's own composition."""
    setup_globals()
    register(name)
    path = with_run(search_path(), run_in(overrides))
    return Loader(path).load_configuration(name, overrides, mode)


def remembered(name, overrides, mode=RunMode.RUN):
    setup_globals()
    return RunAwareLoader(search_path()).load_configuration(name, overrides, mode)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(loader, "_COMPOSED", {})


COMMANDS = [
    [],
    ["seed=3"],
    ["experiment=cifar10/pfgmpp", "path.D=64", "optimizer.lr=1e-5", "path.D=128"],
    ["sampler.steps=7", "sampler=heun", "dataset=digits", "network.model_channels=8"],
    ["dataset=digits", "network.channel_mult=[1,2]", "metric=[nfe,fd_raw]", "logger=csv"],
    ["+optimizer.foreach=true", "experiment=cifar10/edm"],
    ["experiment=cifar10/edm", "~augmentation.p"],
    ["hydra.job.name=mine", "seed=4"],
    ["sampler={steps:3}"],
]


@pytest.mark.parametrize("overrides", COMMANDS, ids=" ".join)
def test_every_kind_of_override_gives_hydras_config(overrides):
    expected = plain("train", overrides)
    for _ in range(2):
        found = remembered("train", overrides)
        assert OmegaConf.to_container(found) == OmegaConf.to_container(expected)
        assert OmegaConf.is_struct(found)
        assert not OmegaConf.is_readonly(found.hydra)


def test_equal_choices_are_composed_once_whatever_the_values(monkeypatch):
    asked = []
    load = Loader.load_configuration

    def counted(self, name, overrides, *how):
        asked.append(overrides)
        return load(self, name, overrides, *how)

    monkeypatch.setattr(Loader, "load_configuration", counted)
    first = remembered("train", ["dataset=digits", "seed=1"])
    first.seed = 99
    assert remembered("train", ["seed=2", "dataset=digits"]).seed == 2
    assert remembered("train", ["dataset=digits"]).seed == plain("train", []).seed
    remembered("train", ["dataset=digits"], RunMode.MULTIRUN)
    remembered("train", ["dataset=moons", "network=mlp"])
    assert asked[:1] + asked[2:] == [["dataset=digits"]] * 2 + [["dataset=moons", "network=mlp"]]


@pytest.mark.parametrize(
    "overrides",
    [["sead=1"], ["optimizer.lrr=1"], ["trainer.max_kimg.x=1"], ["dataset=digit"], ["seed=1,2"]],
    ids=" ".join,
)
def test_mistakes_are_hydras(overrides):
    messages = []
    for compose in (plain, remembered, remembered):
        with pytest.raises(HydraException) as refused:
            compose("train", overrides)
        messages.append(str(refused.value))
    assert len(set(messages)) == 1


def test_a_run_that_changed_is_read_again(tmp_path):
    for steps in (5, 6):
        given = ["dataset=digits", "sampler=euler", f"sampler.steps={steps}"]
        run = check_job("train", given)
        (tmp_path / "config.yaml").write_text(json.dumps(run.config))
        (tmp_path / "manifest.json").write_text(json.dumps({"choices": run.choices}))
        for _ in range(2):
            found = remembered("eval", [f"run={tmp_path}", "num_samples=8"])
            assert found.sampler.steps == steps
            assert found.num_samples == 8


def test_outside_folders_are_read_each_time(tmp_path):
    for steps in (5, 6):
        (tmp_path / "sampler").mkdir(exist_ok=True)
        (tmp_path / "sampler" / "own.yaml").write_text(f"steps: {steps}\n")
        setup_globals()
        outside = RunAwareLoader(search_path(str(tmp_path)))
        found = outside.load_configuration("train", ["sampler=own"], RunMode.RUN)
        assert found.sampler.steps == steps
    assert loader._COMPOSED == {}


def test_only_so_many_are_remembered(monkeypatch):
    monkeypatch.setattr(loader, "_REMEMBERED", 2)
    for name in ("digits", "fashion10k", "digits", "cifar10"):
        remembered("train", [f"dataset={name}"])
    assert [key[1] for key in loader._COMPOSED] == ["dataset=digits", "dataset=cifar10"]


def test_quotes_are_no_part_of_a_runs_name():
    assert run_in(["run='a b'"]) == "a b"
    assert run_in(["run='a b','c d'"]) == "a b"
    assert run_in(["run=a,b", "recipe=c"]) == "c"
    assert run_in(["run=a", "recipe=null"]) == "a"
    assert run_in(["run=[a"]) is None
    assert run_in([]) is None
