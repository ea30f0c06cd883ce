"""A value that another group's option lacks: the message names the file it belongs in."""

import pytest

from flowexp.config.misfits import misfits
from flowexp.config.option_files import OptionFiles

FAILED = [("timestep.low", "path.t_min"), ("timestep.high", "path.t_max")]
CONFIG = {"path": {"_target_": "flowexp.paths.Linear", "sigma_min": 0.0}}


@pytest.fixture
def files(tmp_path, monkeypatch):
    for group in ("path", "timestep"):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "mine.yaml").write_text("# mine\n")
    monkeypatch.chdir(tmp_path)
    return lambda **choices: OptionFiles(choices, tmp_path / "conf")


def test_keys_are_added_to_the_users_yaml(files):
    (found,) = misfits(FAILED, config=CONFIG, files=files(path="mine", timestep="uniform"))
    assert found.key == "timestep.low"
    assert found.remedy == (
        "Add t_min and t_max to conf/path/mine.yaml; "
        "or give timestep.low=VALUE timestep.high=VALUE."
    )


def test_a_class_that_does_not_take_the_key_is_named(files):
    failed = [("task.num_classes", "network.label_dim")]
    config = {"network": {"_target_": "torch.nn.Linear"}}
    (found,) = misfits(failed, config=config, files=files(network="unet"))
    assert "Add label_dim to the command (network.label_dim=VALUE) and to torch.nn.Linear" in str(
        found
    )


def test_a_misspelt_reference_in_the_users_yaml_is_guessed(files):
    failed = [("timestep.low", "path.sigma_mn")]
    (found,) = misfits(failed, config=CONFIG, files=files(path="linear", timestep="mine"))
    assert found.remedy == "Did you mean ${path.sigma_min} in conf/timestep/mine.yaml?"


def test_two_options_of_flowexp_do_not_fit(files):
    (found,) = misfits(FAILED, config=CONFIG, files=files(path="linear", timestep="uniform"))
    assert "Choose another timestep or another path; these two do not fit together." in found.remedy
