"""Folders of runs on the command line of eval."""

import pytest

from flowexp.apps.sweeps import for_every_run


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in ("one", "sweep/0", "sweep/1", "single/x"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("seed: 0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "expected", "runs"),
    [
        (["run=one", "repeats=3"], ["run=one", "repeats=3"], []),
        (["one"], ["one"], []),
        (["run=one", "sampler.steps=4,6", "-m"], ["run=one", "sampler.steps=4,6", "-m"], []),
        (["run=nowhere"], ["run=nowhere"], []),
        (["run=one,sweep/0", "-m"], ["run=one,sweep/0", "-m"], ["one", "sweep/0"]),
        (["one", "sweep"], ["run=one,sweep/0,sweep/1", "-m"], ["one", "sweep/0", "sweep/1"]),
        (["run=sweep", "recipe=one"], ["run=sweep", "recipe=one"], []),
        (["run=sweep", "--cfg", "job"], ["run=sweep", "--cfg", "job"], []),
        (
            ["repeats=3", "sweep", "dirs.sweep=x"],
            ["run=sweep/0,sweep/1", "repeats=3", "dirs.sweep=x", "-m"],
            ["sweep/0", "sweep/1"],
        ),
    ],
)
def test_a_folder_stands_for_a_sweep_over_its_runs(arguments, expected, runs):
    assert for_every_run("eval", arguments) == (expected, runs)


def test_what_a_sweep_over_a_folder_writes_lies_in_it():
    given, _ = for_every_run("eval", ["sweep"])
    assert given[1].startswith("dirs.sweep=sweep/eval/")
    given, runs = for_every_run("eval", ["single"])
    assert (given[0], "-m" in given, runs) == ("run=single/x", False, ["single/x"])
