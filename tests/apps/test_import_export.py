"""What the verbs import and export refuse, and what the user may still choose."""

from pathlib import Path

import pytest
import yaml

from flowexp.cli import main
from flowexp.config.check import check
from flowexp.errors import UsageError
from flowexp.published import Part, Published, Shape
from flowexp.published.model import override, published_overrides
from tests.published.persistence_files import (
    network,
    stored_precond,
    write_snapshot,
)


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_snapshot(tmp_path / "a b=1, 'c'.pkl", stored_precond("EDMPrecond", network()))


def published(**shape):
    parts = {
        "network": Part("ddpmpp", {"img_resolution": 32, "in_channels": 3, "label_dim": 0}),
        "path": Part("edm"),
        "parameterization": Part("edm"),
        "sampler": Part("edm_heun", {"steps": 18}),
    }
    shown = Shape(**{"resolution": 32, "channels": 3, "label_dim": 0, **shape})
    return Published("x", Path("x"), "0", parts, shown, {}, None, float("inf"))


def test_a_file_with_any_name_and_choices_of_the_user(snapshot, tmp_path):
    code = main(["import", f"file={override('', str(snapshot))[1:]}", "name=mine", "sampler=euler",
                 "sampler.steps=7"])  # fmt: skip
    assert code == 0
    config = yaml.safe_load((tmp_path / "outputs/imported/mine/config.yaml").read_text())
    assert config["sampler"]["_target_"].endswith("Euler")
    assert config["sampler"]["steps"] == 7


def test_a_run_is_not_written_twice(snapshot, capsys):
    snapshot = snapshot.rename("tiny.pkl")
    assert main(["import", str(snapshot)]) == 0
    assert main(["import", str(snapshot)]) == 2
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("dataset=cifar10", "does not fit CIFAR10"),
        ("network=ncsnpp", "do not fit the chosen network"),
        ("sampler.stepz=3", "sampler.steps"),
        ("name=", "name"),
    ],
)
def test_choices_that_do_not_fit(snapshot, choice, said, capsys, tmp_path):
    snapshot = snapshot.rename("tiny.pkl")
    assert main(["import", str(snapshot), choice]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("outputs/**/last.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "none.pkl"], "there is no file none.pkl"),
        (["import"], "file: must be given"),
        (["export"], "run=DIR"),
    ],
)
def test_wrong_use(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(snapshot, capsys):
    assert main(["import", str(snapshot.rename("tiny.pkl"))]) == 0
    assert main(["export", "run=outputs/imported/tiny", "format=pickle"]) == 2
    assert "Use safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "dataset"),
    [
        ({}, "cifar10"),
        ({"label_dim": 10}, "cifar10"),
        ({"label_dim": 3}, "image_folder"),
        ({"resolution": 64, "label_dim": 1000}, "imagenet64"),
        ({"resolution": 64}, "ffhq64"),
        ({"resolution": 16, "channels": 1}, "image_folder"),
    ],
)
def test_the_dataset_has_the_shape_of_the_model(shape, dataset):
    chosen = published_overrides(published(**shape))
    assert f"dataset={dataset}" in chosen
    assert "dataset=digits" not in published_overrides(published(**shape), given=["dataset=digits"])


@pytest.mark.parametrize("value", ["${oc.env:HOME}", ["${oc.create:{_target_:torch.load,f:x}}"]])
def test_a_value_of_the_file_computes_nothing(value):
    """OmegaConf makes nodes of text, which would be built with the user's own."""
    foreign = published()
    foreign.parts["network"].arguments["channel_mult"] = value
    with pytest.raises(UsageError, match="the file holds the interpolation"):
        published_overrides(foreign)


def test_the_config_is_that_of_train():
    given = ["sampler.steps=9"]
    config = check("train", [*published_overrides(published(), given=given), *given]).sound()
    assert config["sampler"]["steps"] == 9
    assert config["network"]["_target_"].endswith("SongUNet")
    assert config["ema"] == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), (True, "true"), (float("inf"), "inf"), ([1, 2], "[1,2]"), (0.5, "0.5"),
        ("plain-1.pkl", "plain-1.pkl"), ("a b", "'a b'"), ("it's", "'it\\'s'"),
    ],
)  # fmt: skip
def test_values_in_hydras_grammar(value, text):
    assert override("key", value) == f"key={text}"
