"""What stored configs may name: flowexp's parts where their kind is wanted, and declared ones."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flowexp.config import conf_dir
from flowexp.config.check import check_job
from flowexp.config.instantiate import instantiate
from flowexp.config.rules import labels_dropped
from flowexp.config.signatures import RESERVED, signature_of
from flowexp.config.trust import (
    KINDS,
    STRANGER,
    USER,
    Author,
    Declared,
    admitted,
    declared,
    declared_in,
    must_be_declared,
    problems_with,
    settings_file,
    trusting,
)
from flowexp.errors import UsageError
from flowexp.runs.assemble import part_of
from flowexp.tree import mapped

STORED = Path(__file__).parents[1] / "compat/version_0_1"

# Each of these does something on being called, or gives what is called next.
CALLS = [
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.nn.Module.load_state_dict",
    "torch.nn.os.system",
    "torch.nn.modules.module.torch.load",
    "torch.nn.utils.clip_grad_norm_",
    "torch.nn.functional.relu",
    "torch.optim.lr_scheduler.LambdaLR",
    "torch.serialization.load",
    "torchmetrics.image.fid.NoTrainInceptionV3",
    "torchmetrics.utilities.imports.os.system",
    "pytorch_lightning.Trainer",
    "pytorch_lightning.callbacks.os.system",
    "pytorch_lightning.loggers.csv_logs.os.system",
    "joblib.load",
    "numpy.load",
    "pandas.read_pickle",
    "pickle.loads",
    "shutil.copyfile",
    "os.system",
    "posix.system",
    "subprocess.run",
    "builtins.eval",
    "builtins.exec",
    "runpy.run_path",
    "importlib.import_module",
    "functools.partial",
    "hydra.utils.instantiate",
    "hydra.utils.get_class",
    "hydra.utils.get_method",
    "hydra._internal.utils._locate",
    "omegaconf.OmegaConf.register_new_resolver",
    "flowexp.files.write_text",
    "flowexp.files.write_atomically",
    "flowexp.config.instantiate.instantiate",
    "flowexp.config.stand_in.evaluated",
    "flowexp.runs.RunDirectory",
    "flowexp.runs.RunDirectory.start",
    "flowexp.runs.write_checkpoint",
    "flowexp.runs.library.load",
    "flowexp.load",
    "flowexp.cli.main",
    "flowexp.locks.FileLock",
    "flowexp.pairs.write_store",
    "flowexp.tables.fork_server.ForkServer",
    "flowexp.samplers.base.torch.load",
    "flowexp.samplers.Heun.sample",
    "flowexp.samplers._Heun",
    "flowexp.samplers.NoSuchThing",
    "flowexp.metrics.shuffle_order",
    "flowexp",
    "evil.Part",
    "evil",
    "nowhere.Part",
    ".",
    "",
    "a..b",
]
NO_NAMES = [None, 5, True, ["torch.load"], {"_target_": "torch.load"}]


def refusal(node, group, **more):
    with pytest.raises(UsageError) as caught:
        admitted(node, key=group, by=Author.of("DIR/config.yaml"), **more)
    return caught.value


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """The current folder, importable as for a command, with a module that leaves a mark."""
    (tmp_path / "evil.py").write_text(
        "import pathlib\npathlib.Path('executed').touch()\n"
        "from os import system\nimport os\n"
        "later_options = pathlib.Path('executed').touch()\n"
        "class Part:\n    def __init__(self, **given):\n        self.given = given\n"
        "    class Inner:\n        pass\n"
        "def make(**given):\n    return Part(**given)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("evil", None)


@pytest.mark.parametrize("target", CALLS)
def test_no_other_name_is_called_wherever_it_stands(target, in_folder):
    refusal({"_target_": "warm.up"}, "sampler")
    before = set(sys.modules)
    heun = {"_target_": "flowexp.samplers.Heun", "steps": 2}
    for group in KINDS:
        error = refusal({"_target_": target}, group)
        assert error.key == f"{group}._target_"
        assert f"DIR/config.yaml names {target}, which is no " in error.problem
        assert "Nothing of it was run" in error.remedy
        for argument in ("anything", "steps", "time_grid", "network", "teacher"):
            for value in (
                {"_target_": target},
                [[{"_target_": target}]],
                {"a": {"_target_": target}},
            ):
                refusal(
                    {"a": {**heun, argument: value}}
                    if group == "metric"
                    else heun | {argument: value},
                    group,
                )
    nested = {
        **heun,
        "time_grid": {"_target_": "flowexp.samplers.Natural", "t_end": {"_target_": target}},
    }
    assert refusal(nested, "sampler").key == "sampler.time_grid.t_end._target_"
    assert "_args_[1]" in refusal({**heun, "_args_": [4, {"_target_": target}]}, "sampler").key
    assert "metric.x" in refusal({"x": {"_target_": target}}, "metric").key
    assert "[0]" in refusal([{"_target_": target}], "sampler").key
    assert set(sys.modules) == before
    assert not (in_folder / "executed").exists()


@pytest.mark.parametrize("name", sorted(RESERVED - {"_target_"}))
def test_keys_of_hydra_hold_values_and_call_nothing(name, in_folder):
    """Hydra builds what stands at ``_args_`` before it looks whether that is a list."""
    heun = {"_target_": "flowexp.samplers.Heun", "steps": 2}
    call = "{_target_: evil.Part}"
    for value in (yaml.safe_load(call), [yaml.safe_load(call)], f"${{oc.create:'{call}'}}"):
        with pytest.raises(UsageError, match=f"sampler.{name}"):
            instantiate({**heun, name: value}, key="sampler", by=STRANGER)
    assert "evil" not in sys.modules
    assert not (in_folder / "executed").exists()


def test_what_is_known_of_labels_runs_nothing_of_a_stored_config(tmp_path, monkeypatch):
    """Stand-ins run the source of a class, which can reach anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "reaching.py").write_text(
        "class Part:\n    label_dim = 3\n    takes_tokens = False\n    label_dropout = 0.0\n"
        "    def __init__(self):\n        for cls in object.__subclasses__():\n"
        "            if cls.__name__ == '_wrap_close':\n"
        "                cls.__init__.__globals__['mkdir']('executed')\n"
    )
    part = {"_target_": "reaching.Part"}
    labelled = {"_target_": "flowexp.networks.SongUNet", "label_dim": 3, "label_dropout": 0.0}
    (tmp_path / "run").mkdir()
    for content in ({"network": part, "objective": {}}, {"network": labelled, "objective": part}):
        (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(content))
        for config in (content, {"run": "run"}, {**content, "network": labelled, "init": "run"}):
            assert labels_dropped(config) is None
    assert not (tmp_path / "executed").exists()
    labels_dropped(content, by=USER)  # which shows that the guard above is needed
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("target", NO_NAMES)
def test_a_target_is_a_dotted_path(target):
    assert "not a dotted path" in refusal({"_target_": target}, "sampler").problem


@pytest.mark.parametrize(
    ("group", "target", "kind"),
    [
        ("sampler", "flowexp.paths.Path", "Sampler"),
        ("sampler", "torch.nn.Linear", "Sampler"),
        ("sampler", "flowexp.samplers.Natural", "Sampler"),
        ("sampler", "flowexp.runs.trained.TrainedModel", "Sampler"),
        ("network", "flowexp.samplers.Heun", "Module"),
        ("network", "torch.optim.Adam", "Module"),
        ("network", "flowexp.runs.trained.TrainedModel", "Module"),
        ("metric", "flowexp.samplers.Heun", "Metric or ModelMetric"),
        ("metric", "torch.nn.Linear", "Metric or ModelMetric"),
        ("dataset", "flowexp.data.pair_store.PairStore", "Dataset"),
        ("optimizer", "torch.nn.Linear", "Optimizer"),
        ("callbacks", "pytorch_lightning.loggers.CSVLogger", "Callback"),
    ],
)
def test_a_part_stands_where_its_kind_is_wanted(group, target, kind):
    assert f"names {target}, which is no {kind}" in refusal({"_target_": target}, group).problem


def test_an_argument_is_of_the_kind_that_its_annotation_says():
    def of(**more):
        return {"_target_": "flowexp.samplers.Heun", "steps": 2, **more}

    admitted(of(time_grid={"_target_": "flowexp.samplers.Natural"}), key="sampler", by=STRANGER)
    wrong = of(time_grid={"_target_": "flowexp.samplers.Euler"})
    assert "which is no TimeGrid" in refusal(wrong, "sampler").problem
    assert refusal(of(steps={"_target_": "flowexp.samplers.Natural"}), "sampler")
    part = {"_target_": "flowexp.networks.low_rank.LowRank"}
    for inner in ("flowexp.networks.mlp.MLP", "torch.nn.Linear"):
        admitted({**part, "network": {"_target_": inner}}, key="network", by=STRANGER)
    assert refusal({**part, "network": {"_target_": "flowexp.paths.VE"}}, "network")


def test_what_a_name_promises_is_held_against_the_class():
    """By their names these are classes of the library's; what they are is known once imported."""
    for group, target in (
        ("network", "torch.nn.Parameter"),
        ("network", "torch.nn.NoSuchThing"),
        ("optimizer", "torch.optim.Optimiser"),
        ("callbacks", "pytorch_lightning.callbacks.Any"),
    ):
        with pytest.raises(UsageError, match=target.rpartition(".")[2]):
            instantiate({"_target_": target}, key=group)


def test_hydras_own_keys_call_nothing_more():
    heun = {"_target_": "flowexp.samplers.Heun", "steps": 2}
    assert "_partial_" in refusal({**heun, "_partial_": True}, "sampler").key
    adam = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3}
    assert instantiate(adam, key="optimizer").keywords == {"lr": 1e-3}
    for value in ("${oc.env:HOME}", "a ${oc.decode:x}", "${mine:1}", "${network.hidden}"):
        for node in ({**heun, "steps": value}, {"_target_": value}, {**heun, "_args_": [[value]]}):
            assert (
                "interpolation" in refusal(node, "sampler").problem
                or "names" in refusal(node, "sampler").problem
            )
    late = {
        "_target_": "flowexp.networks.mlp.MLP",
        "_recursive_": False,
        "hidden": {"_target_": "os.system"},
    }
    assert refusal(late, "network")


def test_a_metric_of_a_library_unpickles_no_file(tmp_path):
    """torch-fidelity reads the weights of an extractor as a pickle, whatever is in it."""
    fid = "torchmetrics.image.FrechetInceptionDistance"
    admitted({"x": {"_target_": fid, "feature": 64}}, key="metric", by=STRANGER)
    for more in (
        {"feature_extractor_weights_path": "x.pt"},
        {"_args_": [64, True, True, None, "x"]},
    ):
        adapted = {
            "_target_": "flowexp.metrics.TorchmetricsMetric",
            "metric": {"_target_": fid, **more},
        }
        for node in ({"_target_": fid, **more}, adapted):
            error = refusal({"x": node}, "metric")
            assert f"gives {fid} the file" in error.problem
            with trusting(declared_in([fid])):
                admitted({"x": node}, key="metric", by=STRANGER)


def test_the_user_may_call_anything(in_folder):
    made = instantiate({"_target_": "evil.Part", "a": 1}, key="teacher", by=USER)
    assert made.given == {"a": 1}
    assert (in_folder / "executed").exists()


def declare_by_environment(folder, monkeypatch):
    monkeypatch.setenv("FLOWEXP_TRUST", "other, evil")
    return Declared()


def declare_by_class(folder, monkeypatch):
    monkeypatch.setenv("FLOWEXP_TRUST", "evil.Part,evil.make")
    return Declared()


def declare_by_settings(folder, monkeypatch):
    file = folder / "settings/flowexp/settings.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("trust: [evil]\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "settings"))
    return Declared()


def declare_by_home(folder, monkeypatch):
    file = folder / "home/.config/flowexp/settings.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("trust: evil\n")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(folder / "home"))
    return Declared()


def declare_by_folder(folder, monkeypatch):
    (folder / "my_conf/network").mkdir(parents=True)
    (folder / "my_conf/network/mine.yaml").write_text("# mine\n_target_: evil.Other\nx: ${a.b}\n")
    (folder / "my_conf/broken.yaml").write_bytes(b"{\xff")
    return declared_in([], config_dir=folder / "my_conf")


def declare_by_override(folder, monkeypatch):
    return declared_in(["evil.Part", "evil.make"])


WAYS = [declare_by_environment, declare_by_class, declare_by_settings, declare_by_home,
        declare_by_folder, declare_by_override]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_the_user_has_declared_is_built(way, in_folder, monkeypatch):
    node = {"_target_": "evil.Part", "grid": {"_target_": "flowexp.samplers.Natural"}}
    refusal(node, "sampler")
    with trusting(way(in_folder, monkeypatch)):
        made = instantiate(node, key="teacher")
        assert type(made).__name__ == "Part"
        assert type(made.given["grid"]).__name__ == "Natural"
        assert instantiate({"_target_": "evil.make"}, key="teacher").given == {}
        # Neither what it imports from elsewhere, nor what else stands in the config.
        for target in ("evil.system", "evil.os.system", "evil.pathlib.Path", "evilest.Part"):
            with pytest.raises(UsageError, match=target):
                instantiate({"_target_": target}, key="sampler")
        refusal({**node, "grid": {"_target_": "os.system"}}, "sampler")
        refusal({"_target_": "torch.load"}, "sampler")
        with pytest.raises(UsageError, match=r"sampler: Part is not of type Sampler"):
            instantiate(node, key="sampler")
    if way in (declare_by_folder, declare_by_override):
        refusal(node, "sampler")


def test_a_folder_declares_no_library_but_the_targets_themselves(tmp_path):
    (tmp_path / "x.yaml").write_text(
        "a: {_target_: torch.load}\nb: [{_target_: os.path.join}]\nc: {_target_: mine.parts.A}\n"
        "d: {_target_: flowexp.files.write_text}\n"
        "train: network._target_=other.Net network.width=3\n\"_target_\": 'quoted.A'\n"
    )
    found = declared_in([], config_dir=tmp_path)
    assert found.modules == {"mine.parts", "other", "quoted"}
    assert found.targets >= {"torch.load", "os.path.join", "flowexp.files.write_text"}


def test_runs_that_lie_in_a_folder_of_options_declare_nothing(tmp_path):
    for folder in ("network", "outputs/theirs/pairs", "outputs/mine"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "config.yaml").write_text("a: {_target_: primary.A}")
    (tmp_path / "network/x.yaml").write_text("_target_: mine.parts.A")
    (tmp_path / "outputs/theirs/config.yaml").write_text("network: {_target_: evil.Part}")
    for file in ("overrides.yaml", "pairs/more.yaml"):
        (tmp_path / "outputs/theirs" / file).write_text("- network._target_=evil.Part")
    assert declared_in([], config_dir=tmp_path).modules == {"primary", "mine.parts"}


def test_without_a_home_nothing_is_read_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "flowexp").mkdir()
    (tmp_path / "flowexp/settings.yaml").write_text("trust: [evil]")
    (tmp_path / ".config/flowexp").mkdir(parents=True)
    (tmp_path / ".config/flowexp/settings.yaml").write_text("trust: [evil]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWEXP_TRUST", raising=False)
    for home in ("", ".", "relative"):
        for config in ("", ".", "relative"):
            monkeypatch.setenv("HOME", home)
            monkeypatch.setenv("XDG_CONFIG_HOME", config)
            assert declared() == Declared()
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no home, no user
    assert settings_file() is None
    assert declared() == Declared()


@pytest.mark.parametrize("text", ["trust: 5", "trust: [5]", "- evil", "{", "trust: {a: b}"])
def test_settings_that_say_something_else_are_named(text, tmp_path, monkeypatch):
    (tmp_path / "flowexp").mkdir()
    (tmp_path / "flowexp/settings.yaml").write_text(text)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"settings\.yaml holds no list of packages"):
        declared()
    for harmless in ("", "trust:", "other: 1"):
        (tmp_path / "flowexp/settings.yaml").write_text(harmless)
        assert declared().modules == set()


@pytest.mark.parametrize(
    ("target", "offered"),
    [("evil.Part", "evil,"), ("evil.make", "evil,"),
     ("torchvision.models.VGG", "torchvision.models.VGG,"),
     ("torch.nn.utils.parametrize.P", "torch.nn.utils.parametrize.P,"),
     ("torch.load", None), ("joblib.load", None), ("os.system", None), ("subprocess.Popen", None),
     ("flowexp.runs.RunDirectory", None)],
)  # fmt: skip
def test_the_remedy_offers_to_trust_what_can_be_a_part(target, offered):
    remedy = refusal({"_target_": target}, "network").remedy
    assert (f"set FLOWEXP_TRUST={offered}" in remedy) if offered else ("TRUST" not in remedy)


def stored(file):
    """An option as a config holds it, as far as its file tells: interpolations give values."""
    content = yaml.safe_load(file.read_text()) or {}
    content.pop("defaults", None)
    return mapped(content, lambda leaf: 1 if isinstance(leaf, str) and "${" in leaf else leaf)


def argument_of(group, name, node):
    """A part of an inner group where an option of the outer group takes it."""
    for file in sorted((conf_dir() / group).glob("*.yaml")):
        outer = stored(file)
        signature = "_target_" in outer and signature_of(outer["_target_"])
        # A text under this name is no part: a regression's target is a kind of prediction.
        if signature and name in signature.parameters and not isinstance(outer.get(name), str):
            yield file.stem, {**outer, name: node}


@pytest.mark.parametrize("group", sorted(KINDS))
def test_every_shipped_option_may_be_stored(group):
    """Options as they are composed are judged where all pairs of them are built."""
    for file in sorted((conf_dir() / group).glob("*.yaml")):
        if (node := stored(file)).get("_target_") or "solver_error" not in node:
            assert problems_with({group: node}, by=STRANGER) == [], file
    for file in sorted((conf_dir() / group).glob("*/*.yaml")):
        found = dict(argument_of(group, file.parent.name, stored(file)))
        assert found, file
        for outer, node in found.items():
            assert problems_with({group: node}, by=STRANGER) == [], (outer, file)


def test_every_group_of_parts_has_a_kind():
    named = {
        file.relative_to(conf_dir()).parts[0]
        for file in conf_dir().rglob("*.yaml")
        if "_target_:" in file.read_text() and len(file.relative_to(conf_dir()).parts) > 1
    }
    assert named - {"experiment", "table"} <= set(KINDS)


@pytest.mark.parametrize("name", ["afhqv2_64/rfpp", "cifar10/flowturbo_refiner", "digits/edm"])
def test_a_recipe_may_be_stored(name):
    config = check_job("train", [f"experiment={name}", "teacher=x", "init=x"]).config
    assert len(config) > 20
    assert problems_with(config, by=STRANGER) == []


def test_what_earlier_versions_stored_may_be_stored():
    files = sorted(STORED.rglob("config.yaml"))
    assert len(files) > 8
    for file in files:
        assert problems_with(yaml.safe_load(file.read_text()), by=STRANGER) == [], file


def test_foreign_packages_are_those_to_be_declared():
    net = {"_target_": "my.Net", "b": {"_target_": "torch.nn.SiLU"}, "c": [math.inf]}
    config = {"network": net, "logger": {"x": {"_target_": "other.Logger"}}}
    assert must_be_declared(config) == ["my"]
    assert must_be_declared(config, groups=["logger"]) == ["other"]
    whole = {"_target_": "torchvision.models.VGG"}  # no package of the user's own
    assert must_be_declared({"network": whole}) == ["torchvision.models.VGG"]
    assert must_be_declared({"sampler": {"_target_": "flowexp.samplers.Heun"}}) == []


@pytest.mark.parametrize("way", ["the command", "python -m"])
def test_nothing_in_the_current_folder_replaces_a_module(way, tmp_path):
    """It is searched last, so that users can name modules there."""
    module = [] if way == "python -m" else ["flowexp"]  # -m itself would take that one
    for name in ["torch", "yaml", "hydra", "numpy", "pytorch_lightning", "json", *module]:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('executed {name}')")
    code = "import sys; from flowexp.cli import main; sys.exit(main(['check', 'network=mlp']))"
    run = ["-m", "flowexp", "check", "network=mlp"] if not module else ["-P", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, *run],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "executed" not in done.stdout + done.stderr
    assert "network" in done.stdout + done.stderr


@pytest.mark.parametrize("group", ["sampler", "coupling", "timestep", "objective", "guidance"])
def test_a_part_of_the_users_own_is_of_its_kind_too(group):
    (kind,) = KINDS[group]
    config = {group: {"_target_": "torch.nn.Identity"}}
    with pytest.raises(
        UsageError, match=f"Identity is not of type {kind.rpartition('.')[2]}"
    ) as caught:
        part_of(config, group, by=USER, prefix="teacher: ")
    assert caught.value.key == f"teacher: {group}"
    assert caught.value.remedy == f"Derive it from {kind}."
