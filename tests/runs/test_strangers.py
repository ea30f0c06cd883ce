"""Opening what a stranger has stored runs nothing of his, through any entry that reads it."""

import contextlib
import copy
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra.errors import InstantiationException
from safetensors import safe_open
from safetensors.torch import save_file

import flowexp
from flowexp.apps.named_runs import open_runs
from flowexp.cli import main
from flowexp.config.check import check
from flowexp.config.instantiate import instantiate
from flowexp.config.trust import USER
from flowexp.errors import UsageError
from flowexp.runs import RunDirectory, read_checkpoint, write_checkpoint
from flowexp.runs.assemble import build
from flowexp.runs.opening import open_run
from flowexp.runs.pair_stores import open_pairs
from flowexp.runs.run_directory import changed_keys
from flowexp.runs.trained import TrainedModel, start_from

STORED = Path(__file__).parents[1] / "compat/version_0_1"
MARK = "executed"


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path(MARK),))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: a run, and files that leave a mark when they are executed."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(STORED / "flow", "run")
    content = pickle.dumps(Payload())
    for name in ("x.pkl", "x.joblib"):
        Path(name).write_bytes(content)
    torch.save(Payload(), "x.pt")
    np.save("x.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    code = f"import pathlib\npathlib.Path('{MARK}').touch()\n"
    Path("evil.py").write_text(
        f"{code}from torch import nn\nclass Part(nn.Module):\n    pass\n"
        "later_options = pathlib.Path('executed').touch()\n"
    )
    Path("hub").mkdir()
    Path("hub/hubconf.py").write_text(f"{code}def model(**_): ...\n")
    # As the command line has it.
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    sys.modules.pop("evil", None)
    sys.modules.pop("hubconf", None)


LIVE = {
    "torch.load": {"_target_": "torch.load", "f": "x.pt", "weights_only": False},
    "joblib.load": {"_target_": "joblib.load", "filename": "x.joblib"},
    "numpy.load": {"_target_": "numpy.load", "file": "x.npy", "allow_pickle": True},
    "torch.hub.load": {"_target_": "torch.hub.load", "repo_or_dir": "hub", "source": "local",
                       "model": "model"},
    "shutil.copyfile": {"_target_": "shutil.copyfile", "src": "x.pt", "dst": MARK},
    "runpy.run_path": {"_target_": "runpy.run_path", "path_name": "evil.py"},
    "a module here": {"_target_": "evil.Part"},
    "a file of flowexp's": {"_target_": "flowexp.files.write_text", "text": "",
                            "path": {"_target_": "pathlib.Path", "_args_": [MARK]}},
    "a run of flowexp's": {"_target_": "flowexp.runs.RunDirectory.start", "path": MARK,
                           "config": {}},
}  # fmt: skip
NAMES = {name: node["_target_"] for name, node in LIVE.items()}


@pytest.mark.parametrize("name", LIVE)
def test_these_are_executed_where_the_user_names_them(name, folder):
    """Else nothing below would show anything."""
    if name == "runpy.run_path":
        with pytest.raises(InstantiationException, match="blocklisted"):  # by Hydra, to everybody
            instantiate(LIVE[name], key="sampler", by=USER)
        return
    with contextlib.suppress(UsageError):  # what they return is no sampler
        instantiate(LIVE[name], key="sampler", by=USER)
    assert Path(MARK).exists()


def changed(file, **values):
    content = yaml.safe_load(file.read_text())
    for key, value in values.items():
        *above, last = key.split("__")
        node = content
        for name in above:
            node = node[name]
        node[last] = value
    file.write_text(yaml.safe_dump(content))


def at_sampler(node):
    changed(Path("run/config.yaml"), sampler=node)


def at_network(node):
    changed(Path("run/config.yaml"), network=node)


def at_the_sources_argument(node):
    changed(Path("run/config.yaml"), path__source=node)


def in_a_list(node):
    changed(Path("run/config.yaml"), task__label=[[node]])


def in_positions(node):
    changed(Path("run/config.yaml"), dataset___args_=[node])


PLACES = [at_sampler, at_network, at_the_sources_argument, in_a_list, in_positions]


def opened():
    config = RunDirectory.open("run").config()
    open_run({**config, "run": "run", "weights": None, "checkpoint": "last", "device": "cpu"})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", LIVE)
def test_a_run_is_opened_without_running_it(name, place, folder):
    place(LIVE[name])
    before = set(Path().rglob("*"))
    entries = [opened, lambda: flowexp.load("run")]
    if place in (at_network, at_the_sources_argument):
        entries += [lambda: TrainedModel("run")]
    for enter in entries:
        with pytest.raises(UsageError) as caught:
            enter()
        assert f"run/config.yaml names {NAMES[name]}" in caught.value.problem
        assert caught.value.key.endswith("_target_")
    open_runs([Path("run")])
    flowexp.results(".")
    assert set(Path().rglob("*")) == before
    assert not {"evil", "hubconf"} & set(sys.modules)


def own_network():
    config = yaml.safe_load((STORED / "flow/config.yaml").read_text())
    return instantiate(config["network"], key="network")


def test_a_training_starts_from_weights_alone(folder):
    changed(Path("run/config.yaml"), network=LIVE["torch.load"], path=LIVE["a module here"])
    start_from(own_network(), run="run", weights="raw")
    assert not Path(MARK).exists()


VERBS = {
    "sample": ["seeds=0-3"],
    "eval": ["metric=nfe"],
    "export": [],
    "stream": [],
    "pairs": ["num=8"],
    "calibrate": ["for=boss"],
}


@pytest.mark.parametrize(
    ("verb", "name"),
    [*(("sample", name) for name in LIVE), *((verb, "torch.load") for verb in [*VERBS][1:])],
)
def test_every_verb_refuses_before_it_begins(verb, name, folder, capsys):
    at_sampler(LIVE[name])
    before = set(Path().rglob("*"))
    assert main([verb, "run=run", *VERBS[verb]]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"flowexp: sampler._target_: run/config.yaml names {NAMES[name]}, ")
    assert len(error.splitlines()) == 1
    assert set(Path().rglob("*")) == before


@pytest.mark.parametrize("place", PLACES[1:])
def test_a_verb_looks_at_every_place(place, folder, capsys):
    place(LIVE["torch.load"])
    assert main(["sample", "run=run"]) == 2
    assert "run/config.yaml names torch.load" in capsys.readouterr().err
    assert not Path(MARK).exists()


def test_a_recipe_is_as_strange_as_a_run(folder, capsys):
    shutil.copytree("run", "recipe")
    changed(Path("recipe/config.yaml"), guidance=LIVE["torch.load"])
    assert main(["sample", "run=run", "recipe=recipe"]) == 2
    assert "recipe/config.yaml names torch.load" in capsys.readouterr().err


def test_a_stored_metric_is_no_exception(folder, capsys):
    changed(Path("run/config.yaml"), metric={"mine": LIVE["torch.load"]})
    assert main(["eval", "run=run"]) == 2
    assert "metric.mine._target_: run/config.yaml names torch.load" in capsys.readouterr().err


INSTRUCTIONS = {
    "an environment variable": {"sampler__steps": "${oc.env:HOME}"},
    "a decoded value": {"sampler__steps": "${oc.decode:'1'}"},
    "another node": {"sampler___target_": "${launcher.name}"},
    "a list": {"dataset___args_": [["a", "${oc.env:HOME}"]]},
    "a number for a part": {"sampler": 5},
    "no list of arguments": {"sampler___args_": {"a": "${oc.env:HOME}"}},
    "options of Hydra's": {"sampler__defaults": [{"/hydra/launcher@hydra.launcher": "basic"}]},
}


@pytest.mark.parametrize("kind", INSTRUCTIONS)
def test_a_stored_config_holds_values(kind, folder, capsys, monkeypatch):
    monkeypatch.setenv("HOME", "SECRET")
    changed(Path("run/config.yaml"), **INSTRUCTIONS[kind])
    assert main(["sample", "run=run"]) == 2
    error = capsys.readouterr().err
    assert "run/config.yaml" in error
    assert "SECRET" not in error
    if "options" not in kind:
        with pytest.raises(UsageError, match=r"run/config\.yaml"):
            flowexp.load("run")


def test_hydras_own_node_is_not_among_the_options(folder, capsys):
    """Hydra starts the callbacks and launchers of its node before a job begins."""
    evil = {"callbacks": {"x": {"_target_": "evil.Part"}}, "launcher": LIVE["torch.load"]}
    changed(Path("run/config.yaml"), **{"hydra": evil, "hydra/launcher": copy.deepcopy(evil)})
    manifest = json.loads(Path("run/manifest.json").read_text())
    manifest["choices"] |= {"sampler/override /hydra/launcher": "run", "hydra/launcher": "run"}
    Path("run/manifest.json").write_text(json.dumps(manifest))
    assert main(["sample", "run=run", "+hydra=run", "dirs.run=out"]) == 2
    assert main(["sample", "run=run", "seeds=0-1", "dirs.run=out", "grid=false"]) == 0
    assert not Path(MARK).exists()


@pytest.mark.parametrize("name", LIVE)
def test_a_store_of_pairs(name, folder):
    parts = build(RunDirectory.open("run").config())
    for group in ("start", "sampler", "network"):
        shutil.rmtree("run/pairs")
        shutil.copytree(STORED / "flow/pairs", "run/pairs")
        changed(Path("run/pairs/config.yaml"), **{group: LIVE[name]})
        wanted = rf"{group}._target_: run/pairs/config\.yaml names {NAMES[name]}"
        with pytest.raises(UsageError, match=wanted):
            open_pairs({"pairs": "run/pairs"}, parts, check=True)
    Path("run/pairs/config.yaml").write_text("text")
    with pytest.raises(UsageError, match="cannot be read"):
        open_pairs({"pairs": "run/pairs"}, parts, check=True)
    assert not Path(MARK).exists()


@pytest.mark.parametrize("name", LIVE)
def test_an_exported_file(name, folder):
    (file,) = Path("run/export").rglob("*.safetensors")
    with safe_open(file, framework="pt") as content:
        metadata = content.metadata()
        tensors = {name: content.get_tensor(name) for name in content.keys()}
    config = json.loads(metadata["config"])
    for group in ("network", "sampler", "path"):
        more = {"config": json.dumps(config | {group: LIVE[name]})}
        save_file(tensors, "x.safetensors", metadata=metadata | more)
        with pytest.raises(UsageError, match=rf"x\.safetensors names {NAMES[name]}"):
            flowexp.load("x.safetensors")
    assert not Path(MARK).exists()


def refined(by):
    teacher = {"_target_": "flowexp.runs.trained.TrainedModel", "run": by}
    return {"_target_": "flowexp.samplers.VelocityBlocks", "refiner": teacher, "blocks": "H1P6",
            "time_grid": {"_target_": "flowexp.samplers.Natural"}}  # fmt: skip


def test_a_teacher_and_the_teacher_of_a_teacher(folder, capsys):
    shutil.copytree("run", "bad")
    changed(Path("bad/config.yaml"), network=LIVE["torch.load"])
    changed(Path("run/config.yaml"), sampler=refined("bad"))
    with pytest.raises(UsageError, match=r"bad/config\.yaml names torch\.load"):
        opened()
    assert main(["sample", "run=run", "dirs.run=out"]) == 2
    assert "bad/config.yaml names torch.load" in capsys.readouterr().err
    tiny = ["dataset=moons", "network=mlp", "callbacks=none", "dirs.run=new", "metric=nfe"]
    assert main(["train", *tiny, "objective=phased", "teacher=bad"]) == 2
    error = capsys.readouterr().err
    assert "network._target_: bad/config.yaml names torch.load" in error
    assert not Path(MARK).exists()
    assert not Path("new").exists()
    assert not Path("out").exists()


SELF = {
    "itself": {"_target_": "flowexp.runs.trained.TrainedModel", "run": "run"},
    "no name": {"_target_": 5},
    "no class": {"_target_": "flowexp.networks.Nothing"},
    "no module": {"_target_": "nowhere.Nothing"},
    "no node": {"width": 3},
    "nothing": None,
    "a word": "mlp",
    "a list": [1, 2],
}


@pytest.mark.parametrize("kind", SELF)
@pytest.mark.parametrize("group", ["network", "path", "parameterization"])
def test_an_impossible_part_is_one_sentence(kind, group, folder):
    changed(Path("run/config.yaml"), **{group: SELF[kind]})
    with pytest.raises(UsageError, match=rf"teacher: {group}.*run/config\.yaml"):
        TrainedModel("run")
    content = yaml.safe_load(Path("run/config.yaml").read_text())
    del content[group]
    Path("run/config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=rf"{group}.*names no part"):
        flowexp.load("run")


def test_a_model_that_needs_itself_through_a_declared_class_ends(folder, monkeypatch):
    Path("mine.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self, inner):\n        super().__init__()\n"
    )
    monkeypatch.setenv("FLOWEXP_TRUST", "mine")
    changed(Path("run/config.yaml"), network={"_target_": "mine.Net", "inner": SELF["itself"]})
    with pytest.raises(UsageError, match="the model of run needs itself"):
        TrainedModel("run")
    sys.modules.pop("mine")


def test_continuing_a_strangers_run_evaluates_nothing_of_his_config(folder):
    """What a class says of its later options is evaluated from its source."""
    own = yaml.safe_load(Path("run/config.yaml").read_text())
    at_network({"_target_": "evil.Part", "a": 1})
    found = changed_keys(RunDirectory.open("run").config(), own)
    assert found["network._target_"][0] == "evil.Part"
    assert not Path(MARK).exists()


def test_the_command_line_is_the_users_word(folder, monkeypatch):
    """It may replace what the run names, and says so only for what it names itself."""
    at_network({"_target_": "evil.Part"})
    named = "network._target_=evil.Part"
    job = ["run=run", "sampler=euler"]
    assert "evil.Part" in check("sample", job).problems[0].text
    assert not [p for p in check("sample", [*job, named]).problems if "evil" in p.text]
    taken = "network._target_=${sampler.note}"
    at_sampler({"_target_": "flowexp.samplers.Euler", "note": "torch.load"})
    assert "torch.load" in str(check("sample", ["run=run", taken]).problems[0])
    assert not Path(MARK).exists()


def test_calibrations_of_a_stranger_are_numbers(folder):
    for file in Path("run/calibrations").rglob("*.npz"):
        np.savez(file, times=np.array([Payload()], dtype=object))
    for file in Path("run/calibrations").rglob("*.json"):
        content = json.loads(file.read_text())
        content["settings"] |= {"config": LIVE["torch.load"], "sampler": LIVE["torch.load"]}
        file.write_text(json.dumps(content))
    code = main(["sample", "run=run", "sampler=boss", "seeds=0-1", "dirs.run=out"])
    assert code in (1, 2)
    assert not Path(MARK).exists()


def test_reports_and_comparisons_build_nothing(folder, monkeypatch, capsys):
    everything = yaml.safe_load(Path("run/config.yaml").read_text())
    groups = [group for group, node in everything.items() if isinstance(node, dict)]
    evil = {group: copy.deepcopy(LIVE["a module here"]) for group in groups}
    Path("run/config.yaml").write_text(yaml.safe_dump({**everything, **evil}))
    monkeypatch.setattr("hydra.utils.instantiate", None)
    monkeypatch.setattr("flowexp.config.instantiate._built", None)
    shutil.copytree(STORED / "flow", "other")
    assert main(["report", "run", "other", "out=report.html"]) == 0
    assert "evil.Part" in Path("report.html").read_text()
    assert main(["compare", "run=run", "run=other", "format=csv"]) == 0
    record, _ = open_runs([Path("run"), Path("other")])
    assert record.parameters == sum(
        t.numel()
        for t in read_checkpoint(Path("run/checkpoints/last.ckpt"))["ema"]["main"].values()
    )
    assert not Path(MARK).exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, folder, capsys):
    file = Path("run/checkpoints/last.ckpt")
    content = read_checkpoint(file)
    first = next(iter(content["ema"]["main"]))
    content["ema"]["main"][first].view(-1)[0] = value
    write_checkpoint(file, content)
    for verb in ("sample", "export", "eval"):
        more = ["metric=nfe"] if verb == "eval" else []
        assert main([verb, "run=run", "dirs.run=out", *more]) == 2
        error = capsys.readouterr().err
        assert f"the main weights in run/checkpoints/last.ckpt are not finite: {first}" in error
        assert "checkpoint=STEP" in error
        assert not Path("out").exists()
    for good in ({"weights": "raw"}, {"checkpoint": "10"}):
        assert flowexp.load("run", **good).sample(range(2)).isfinite().all()
    with pytest.raises(UsageError, match="not finite"):
        TrainedModel("run")
    with pytest.raises(UsageError, match="not finite"):
        start_from(own_network(), run="run", weights="main")
