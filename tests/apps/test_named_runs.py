"""Runs are gathered before Hydra, which would keep the last of several."""

import pytest

from flowexp.apps.named_runs import named_paths, with_runs
from flowexp.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run=a", "run=b/c"], ["runs=[a,b/c]"]),
        (["a", "b"], ["runs=[a,b]"]),
        (["run=a,b"], ["runs=[a,b]"]),
        (["run=[a,b]", "c"], ["runs=[a,b,c]"]),
        (["run=2024-01-01/12-00-00"], ["runs=[2024-01-01/12-00-00]"]),
        (["a b"], ["runs=['a b']"]),
        (["runs=[a,b]"], ["runs=[a,b]"]),
        (["--help"], ["--help"]),
        (["--cfg", "job", "run=a"], ["--cfg", "job", "runs=[a]"]),
        (["run=a", "format=csv"], ["format=csv", "runs=[a]"]),
    ],
)
def test_every_way_of_naming_runs_is_one_override(arguments, expected):
    assert with_runs(arguments, verb="compare", example="compare a b") == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run=a", "runs=[b]"], "two ways"),
        (["-m", "run=a"], "Leave out -m"),
        (["run=a{"], "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, says):
    with pytest.raises(UsageError, match=says):
        with_runs(arguments, verb="compare", example="compare a b")


def test_a_folder_of_runs_stands_for_the_runs_in_it(tmp_path):
    for name in ("sweep/1", "sweep/0", "sweep/0/inner"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "config.yaml").write_text("seed: 0")
    found = named_paths([str(tmp_path), str(tmp_path / "sweep" / "1")])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["sweep/0", "sweep/1", "sweep/1"]
    assert named_paths(str(tmp_path / "nowhere")) == [tmp_path / "nowhere"]
    with pytest.raises(UsageError, match="no run is named"):
        named_paths([])
