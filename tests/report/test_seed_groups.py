"""Groups over seeds and their names."""

import pytest

from flowexp.report.run_record import read_run
from flowexp.report.seed_groups import config_differences, seed_groups
from tests.report.runs import CONFIG, make_run
from tests.report.test_comparison import config


def records(tmp_path, *configs, manifests=None):
    found = []
    for number, own in enumerate(configs):
        manifest = None if manifests is None else {"choices": manifests[number]}
        path = make_run(tmp_path / str(number), config=own, grids=(), manifest=manifest)
        found.append(read_run(path, name=str(number)))
    return found


def test_only_differing_keys_and_no_places():
    changed = config(path__D=16, path__schedule=None, dirs__run="elsewhere")
    assert config_differences([CONFIG, changed]) == {
        "path.D": ["inf", "16"],
        "path.schedule": ["-", "null"],
    }
    assert config_differences([CONFIG, CONFIG]) == {}


def test_a_key_that_follows_another_is_left_out_of_the_name(tmp_path):
    # path.D is among the overrides of these runs, and a key of the objective depends on it
    pairs = [(16, "a"), (128, "b"), (16, "a")]
    configs = [
        config(seed=n, objective__scale=scale, path__D=D) for n, (D, scale) in enumerate(pairs)
    ]
    groups = seed_groups(records(tmp_path, *configs))
    assert [(group.name, group.run_names) for group in groups] == [
        ("path.D=16", "0, 2"),
        ("path.D=128", "1"),
    ]


def test_two_swept_keys_make_the_name(tmp_path):
    grid = [config(path__D=D, optimizer__lr=lr) for D in (16, 128) for lr in (0.1, 0.2)]
    names = [group.name for group in seed_groups(records(tmp_path, *grid))]
    assert names[0] == "path.D=16 optimizer.lr=0.1"
    assert len(set(names)) == 4


def test_a_chosen_option_names_what_many_keys_differ_in(tmp_path):
    configs = [config(path__schedule="vp", path__beta=1), config(path__schedule="linear")]
    choices = [{"path": "vp", "logger": "csv"}, {"path": "linear", "logger": "none"}]
    groups = seed_groups(records(tmp_path, *configs, manifests=choices))
    assert [group.name for group in groups] == ["path=vp", "path=linear"]


@pytest.mark.parametrize("text", ["x" * 60, "a\nb" * 30])
def test_long_values_leave_the_name_to_the_runs(tmp_path, text):
    groups = seed_groups(records(tmp_path, config(objective__note=text), config()))
    assert [group.title for group in groups] == ["0", "1"]
