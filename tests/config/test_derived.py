"""``${derived:function,argument}``: values that a config leaves to a function."""

import pytest
from omegaconf import OmegaConf

from flowexp.config.check import check
from flowexp.config.trust import Author, problems_with
from flowexp.errors import UsageError


def doubled(value):
    """Used by a config below."""
    if value > 9:
        raise UsageError(f"{value} is too much.", key="dataset.resolution", remedy="Take 4.")
    return 2 * value


def named(count):
    """Used by a config below."""
    return [f"class {k}" for k in range(count)]


OWN = """
defaults: [image_folder]
archive: somewhere
channels: 1
use_labels: true
num_classes: 2
class_names: ${derived:tests.config.test_derived.named,${.num_classes}}
resolution: ${derived:tests.config.test_derived.doubled,${.max_size}}
max_size: 4
"""


def composed(tmp_path, *overrides, text=OWN):
    (tmp_path / "dataset").mkdir(exist_ok=True)
    (tmp_path / "dataset/own.yaml").write_text(text)
    return check("train", ["dataset=own", *overrides], config_dir=str(tmp_path))


def test_a_value_follows_from_others_unless_it_is_given(tmp_path):
    found = composed(tmp_path).sound()
    assert found["dataset"]["resolution"] == found["network"]["img_resolution"] == 8
    assert found["dataset"]["class_names"] == ["class 0", "class 1"]
    assert composed(tmp_path, "dataset.resolution=5").sound()["dataset"]["resolution"] == 5


def test_what_a_function_refuses_is_said_once_at_its_key(tmp_path):
    (problem,) = composed(tmp_path, "dataset.max_size=10").problems
    assert (problem.key, problem.text) == ("dataset.resolution", "10 is too much.")
    assert problem.remedy == "Take 4."


@pytest.mark.parametrize("function", ["tests.config.test_derived.absent", "no_module.function"])
def test_a_function_that_is_not_there(tmp_path, function):
    text = OWN.replace("tests.config.test_derived.doubled", function)
    (own,) = composed(tmp_path, text=text).problems
    assert own.key == "dataset.resolution"
    assert function in own.text
    assert own.remedy == "Give it with dataset.resolution=VALUE."


def test_a_stored_config_derives_nothing():
    value = "${derived:os.system,true}"
    stored = {"dataset": {"_target_": "flowexp.data.digits.Digits", "resolution": value}}
    assert "interpolation" in problems_with(stored, by=Author.of("config.yaml"))[0].text


def test_lists_are_shown_resolved():
    config = OmegaConf.create({"names": "${derived:tests.config.test_derived.named,2}"})
    assert OmegaConf.to_container(config, resolve=True) == {"names": ["class 0", "class 1"]}
