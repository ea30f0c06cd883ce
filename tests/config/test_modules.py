"""Modules that cannot be imported say why, and how their folder is declared."""

import pytest

from flowexp.config.instantiate import instantiate
from flowexp.config.option_files import OptionFiles
from flowexp.config.targets import check_targets
from flowexp.config.trust import USER, problems_with
from flowexp.errors import UsageError

FILES = {
    "broken_syntax": "class Mine:\n    def x(self:\n        pass\n",
    "broken_import": "import os\nimport nowhere_at_all\nclass Mine: ...\n",
    "broken_line": "class Mine: ...\nx = 1 / 0\n",
    "imports_broken": "from broken_syntax import Mine as Base\nclass Mine(Base): ...\n",
    "sound": "import os\nclass Mine:\n    def __init__(self, width): ...\nclass Other: ...\n"
    "class Wrong:\n    def __init__(self):\n        self.x = self.y\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def problem(target, files=None, **arguments):
    config = {"sampler": {"_target_": target, **arguments}}
    (found,) = check_targets(config, missing=set(), files=files or OptionFiles())
    return str(found)


def test_a_module_that_is_not_there(folder):
    text = problem("nowhere.Mine")
    assert "nowhere.Mine cannot be imported: there is no module nowhere." in text
    assert "folder that holds nowhere.py, put PYTHONPATH=THAT_FOLDER before it" in text
    assert "Did you mean sound?" in problem("soud.Mine")
    assert "Write sampler._target_=FILE.Mine" in problem("Mine")


def test_a_module_near_the_folders_of_the_command_is_found(folder):
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "hidden.py").write_text("class Mine: ...")
    run = OptionFiles(run=folder / "elsewhere" / "outputs" / "run")
    assert "It is in elsewhere: run the command there, or put PYTHONPATH=elsewhere" in problem(
        "hidden.Mine", run
    )


def test_a_stored_run_of_a_module_that_is_not_here_says_both(folder):
    (folder / "run").mkdir()
    (folder / "hidden_too").mkdir()
    config = {"sampler": {"_target_": "nowhere.Mine"}}
    (found,) = problems_with(config, by=type(USER).of(folder / "run" / "config.yaml"))
    assert "set FLOWEXP_TRUST=nowhere" in found.remedy
    assert "There is no module nowhere here: run the command in the folder" in found.remedy


def test_a_class_that_is_not_there_is_guessed_among_the_modules_own(folder):
    text = problem("sound.Othr")
    assert "Did you mean Other? Possible: Mine, Other, Wrong." in text


def test_source_that_does_not_parse(folder):
    text = problem("broken_syntax.Mine")
    assert "SyntaxError in broken_syntax.py, line 2: '(' was never closed" in text


def test_a_missing_argument_is_added_to_the_users_own_yaml(folder):
    file = folder / "conf" / "sampler" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("_target_: sound.Mine\n")
    files = OptionFiles({"sampler": "mine"}, folder / "conf")
    text = problem("sound.Mine", files)
    assert "Add width to conf/sampler/mine.yaml, or give +sampler.width=..." in text
    assert problem("sound.Mine").endswith("Give it with +sampler.width=...")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("broken_import.Mine", "broken_import.py, line 2, imports nowhere_at_all, which is not"),
        ("broken_line.Mine", "broken_line.py, line 2: ZeroDivisionError: division by zero"),
        ("imports_broken.Mine", "SyntaxError in broken_syntax.py, line 2"),
    ],
)
def test_an_import_that_fails_names_the_line(folder, target, words):
    node = {"_target_": target, "inner": {"_target_": "flowexp.samplers.Time"}}
    with pytest.raises(UsageError) as caught:
        instantiate(node, key="teacher", by=USER)
    assert caught.value.key == "teacher._target_"
    assert f"{target} cannot be imported" in caught.value.problem
    assert words in caught.value.problem


def test_a_mistake_inside_a_constructor_is_no_wrong_argument(folder):
    with pytest.raises(AttributeError, match="no attribute 'y'"):
        instantiate({"_target_": "sound.Wrong"}, key="teacher", by=USER)
    with pytest.raises(UsageError, match="missing 1 required positional argument: 'width'"):
        instantiate({"_target_": "sound.Mine"}, key="teacher", by=USER)


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (
            "sampler",
            "sampler: Other is not of type Sampler. Derive it from flowexp.samplers.base.Sampler",
        ),
        ("lr_schedule", "Other is not of type LRSchedule"),
        ("coupling", "Other is not of type Coupling"),
        ("network", "Other is not of type Module"),
    ],
)
def test_a_part_of_another_kind_is_refused(folder, group, words):
    with pytest.raises(UsageError, match=words):
        instantiate({"_target_": "sound.Other"}, key=group, by=USER)


def test_entries_and_partials_of_another_kind_are_refused(folder):
    with pytest.raises(UsageError, match=r"ema\.slow: Other has no method beta"):
        instantiate({"slow": {"_target_": "sound.Other"}, "off": None}, key="ema", by=USER)
    with pytest.raises(UsageError, match=r"callbacks\.x: Other is not of type Callback"):
        instantiate({"x": {"_target_": "sound.Other"}}, key="callbacks", by=USER)
    node = {"_target_": "torch.nn.Linear", "_partial_": True}
    with pytest.raises(UsageError, match="optimizer: Linear is not of type Optimizer"):
        instantiate(node, key="optimizer", by=USER)
