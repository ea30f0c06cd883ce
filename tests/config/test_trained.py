"""Recipes that tune a trained model: ``init: ${trained:RECIPE}``."""

from pathlib import Path

import pytest
import yaml

from flowexp.cli import main
from flowexp.config import conf_dir
from flowexp.config.check import check

FOLDER = conf_dir() / "experiment"
RECIPES = {f.relative_to(FOLDER).with_suffix("").as_posix(): f for f in FOLDER.rglob("*.yaml")}
# coupling=chords refuses a training without init itself, and cannot do without one
CHORDS = {name for name in RECIPES if "boss_straightened" in name}
ECT = "experiment=digits/ect"


def init_of(name):
    """The value of ``init`` in a recipe or in the one that it is based on."""
    content = yaml.safe_load(RECIPES[name].read_text())
    if "init" in content:
        return content["init"]
    based = [e for e in content.get("defaults", ()) if isinstance(e, str) and e != "_self_"]
    return init_of(based[-1].removeprefix("/experiment/")) if based else None


def test_recipes_whose_header_asks_for_init_refuse_to_do_without():
    asking = {name for name, file in RECIPES.items() if "init=" in file.read_text().split("\n")[1]}
    starts = {name: init_of(name) for name in RECIPES}
    assert {name for name, value in starts.items() if value} == asking - CHORDS
    named = {value for value in starts.values() if value}
    assert {value.removeprefix("${trained:").removesuffix("}") for value in named} <= set(RECIPES)


def test_init_is_asked_for_in_one_sentence():
    (problem,) = check("train", [ECT]).problems
    assert problem.key == "init"
    assert problem.text == "this recipe tunes a trained model, but init is not given."
    assert "init=RUN, the directory of a run of digits/edm " in problem.remedy
    assert "init=null trains from random weights on purpose" in problem.remedy


def test_a_recipe_based_on_another_names_its_own_start():
    (problem,) = check("train", ["experiment=cifar10/tcm_stage2", "teacher=x"]).problems
    assert "a run of cifar10/tcm or" in problem.remedy


@pytest.mark.parametrize(("given", "value"), [("somewhere", "somewhere"), ("null", None)])
def test_what_is_given_is_taken(given, value):
    assert check("train", [ECT, f"init={given}"]).sound()["init"] == value


def test_a_run_named_by_from_is_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flow = check("train", ["experiment=fashion10k/rectified_flow"])
    Path("R").mkdir()
    Path("R/config.yaml").write_text(yaml.safe_dump(flow.sound()))
    Path("R/manifest.json").write_text(yaml.safe_dump({"choices": flow.choices}))
    given = ["parent=R", "experiment=fashion10k/reflow", "pairs=P"]
    assert check("train", given).sound()["init"] == "R"
    assert check("train", [*given, "init=null"]).sound()["init"] is None


def test_help_does_not_need_the_run(capsys):
    assert main(["train", ECT, "--help"]) == 0
    assert "run directory whose weights initialize" in " ".join(capsys.readouterr().out.split())
