"""Arguments that name folders of runs, and the runs that are meant."""

import os

import pytest

from flowexp.config.check import check
from flowexp.config.override_text import command_on
from flowexp.config.overrides import in_full, parse, texts
from flowexp.config.run_folders import nearest_run, newest, runs_below

TAKE_RUN = ("train", "eval", "sample", "stream", "pairs", "calibrate", "export")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a sweep of eleven runs and one run."""
    for name in ("outputs/one", *(f"sweep/{number}" for number in range(11))):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("seed: 0")
    os.utime(tmp_path / "sweep" / "5" / "config.yaml", (2e9, 2e9))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("verb", TAKE_RUN)
def test_a_bare_path_is_the_run_of_every_verb_that_takes_one(verb, folder):
    assert in_full(verb, ["seed=1", "outputs/one/"]) == ["run=outputs/one/", "seed=1"]


@pytest.mark.parametrize("name", ["a b", "x/lr=0.1,0.2", "größe", "it's", "[1]", "a${b}", "7"])
def test_a_path_with_any_name_is_read_as_it_stands(name, folder):
    path = folder / "odd" / name
    path.mkdir(parents=True)
    (given,) = in_full("sample", [str(path)])
    (override,) = parse([given])[0]
    assert texts(override) == [str(path)]
    (both,) = in_full("eval", [str(path), "outputs/one"])
    assert texts(parse([both])[0][0]) == [str(path), "outputs/one"]


def test_what_exists_beside_is_no_path(folder):
    (folder / "path=linear").mkdir()
    assert in_full("train", ["path=linear", "~callbacks.ema", "seed=1"])[0] == "path=linear"
    assert in_full("eval", ["./path=linear"]) == ["run='./path=linear'"]
    assert command_on("compare", "path=linear") == "flowexp compare ./path=linear"
    assert in_full("table", ["outputs/one"]) == ["outputs/one"]


@pytest.mark.parametrize(
    ("verb", "overrides", "says"),
    [
        ("eval", ["outputs/on"], "outputs/on: there is no such folder. Did you mean outputs/one?"),
        ("sample", ["word"], "word: this is neither key=value nor a run directory."),
        ("export", ["run=outputs/one/config.yaml"], "Did you mean run=outputs/one?"),
        ("pairs", ["run=empty"], "run: empty holds no run. The latest one is run=sweep/5."),
        ("stream", ["run=sweep/0,nowhere"], "nowhere is not a run directory (no such folder)"),
        (
            "calibrate",
            [],
            "calibrate needs a run. Give run=DIR, a directory that train wrote, such",
        ),
        (
            "sample",
            ["sweep", "seeds=0-3"],
            "run: sweep holds 11 runs (0, 1, 2, 3, 4, 5, ...), but sample takes one run. "
            "Name a run: flowexp sample run=sweep/0 seeds=0-3",
        ),
    ],
)
def test_what_is_no_run_is_answered_in_one_sentence_with_the_nearest(folder, verb, overrides, says):
    found = check(verb, in_full(verb, overrides), multirun=True).problems
    assert len(found) == 1
    assert says in str(found[0])


def test_a_run_that_is_named_twice_is_refused(folder):
    found = check("sample", in_full("sample", ["outputs/one", "run=sweep/1"])).problems
    assert str(found[0]).startswith("outputs/one: the run is named twice.")


def test_runs_come_in_the_order_of_their_numbers(folder):
    assert [path.name for path in runs_below(folder / "sweep")] == [str(n) for n in range(11)]
    assert runs_below(folder / "empty") == []
    assert nearest_run(folder / "outputs" / "oen") == folder / "outputs" / "one"


def test_a_sweep_stands_for_its_runs_among_the_newest(folder):
    for number in (1, 2):
        run = folder / "outputs" / "sweep" / str(number)
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("")
    (folder / "outputs" / "sweep" / "multirun.yaml").write_text("")
    os.utime(folder / "outputs" / "one" / "config.yaml", (1, 1))
    assert [str(path) for path in newest()] == ["outputs/sweep", "outputs/one"]
