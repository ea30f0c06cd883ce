"""Side by side: two numbers share a line only if they can be compared."""

import copy

import pytest

from flowexp.report.comparison import compare, config_differences
from flowexp.report.run_record import read_run
from tests.report.runs import CONFIG, entry, make_run


def pair(tmp_path, first, second, config=None):
    paths = [
        make_run(tmp_path / "a", entries=first),
        make_run(tmp_path / "b", entries=second, config=config),
    ]
    return [read_run(path, name=path.name) for path in paths]


def sheet(runs, name):
    (found,) = [s for s in compare(runs) if s.name == name]
    return found


def cells(runs, name="scores"):
    return [line.cells for line in sheet(runs, name).lines]


def test_only_differing_keys_and_no_places():
    changed = copy.deepcopy(CONFIG)
    changed["path"] = {"D": 16, "schedule": None}
    changed["dirs"] = {"run": "elsewhere"}
    assert config_differences([CONFIG, changed]) == {
        "path.D": ["inf", "16"],
        "path.schedule": ["-", "null"],
    }
    assert config_differences([CONFIG, CONFIG]) == {}


def test_comparable_numbers_share_a_line(tmp_path):
    runs = pair(tmp_path, [entry(33.0)], [entry(35.0)])
    title = "FD[EfficientNet-Lite0 b4, 64px] 200 on digits, EDMHeun, 18 steps"
    assert cells(runs) == [(title, "33", "35")]


@pytest.mark.parametrize(
    ("part", "value"), [("n_gen", 5000), ("ema", "raw"), ("resize", "none"), ("reference", "mnist")]
)
def test_numbers_of_other_protocols_have_lines_of_their_own_and_the_difference_is_named(
    tmp_path, part, value
):
    runs = pair(tmp_path, [entry(33.0)], [entry(35.0, **{part: value})])
    first, second = cells(runs)
    assert first[1:3] == ("33", "-")
    assert second[1:3] == ("-", "35")
    assert second[3] == "[1]"
    assert f"{part}: " in sheet(runs, "scores").notes[0]
    assert "not comparable" in sheet(runs, "scores").notes[0]


def test_other_samplers_are_compared_and_named(tmp_path):
    runs = pair(tmp_path, [entry(33.0)], [entry(35.0, sampler="Heun, 9 steps", nfe=17.0)])
    assert [line[1:3] for line in cells(runs)] == [("33", "35")]
    notes = sheet(runs, "scores").notes
    assert "sampler: a EDMHeun, 18 steps, b Heun, 9 steps" in notes
    assert "nfe: a 35.0, b 17.0" in notes


def test_shared_samplers_have_a_line_each(tmp_path):
    few = {"sampler": "EDMHeun, 6 steps", "nfe": 11.0}
    first = [entry(33.0, directory="1"), entry(140.0, directory="2", **few)]
    second = [entry(150.0, directory="1", **few), entry(35.0, directory="2")]
    found = {
        line[0].rpartition(", ")[2]: line[1:3] for line in cells(pair(tmp_path, first, second))
    }
    assert found == {"18 steps": ("33", "35"), "6 steps": ("140", "150")}


def test_the_latest_of_equal_evaluations_counts(tmp_path):
    runs = pair(tmp_path, [entry(33.0, directory="1"), entry(31.0, directory="2")], [entry(35.0)])
    assert cells(runs)[0][1:3] == ("31", "35")


def test_other_metrics_are_other_lines_without_a_note(tmp_path):
    runs = pair(tmp_path, [entry(33.0)], [entry(0.1, name="kid", metric="KID")])
    assert len(cells(runs)) == 2
    assert sheet(runs, "scores").notes == ()


def test_losses_of_different_quantities_are_not_put_side_by_side(tmp_path):
    changed = copy.deepcopy(CONFIG)
    changed["path"] = {"D": 16}
    same = pair(tmp_path / "same", [], [])
    other = pair(tmp_path / "other", [], [], config=changed)
    assert "last loss" in dict(line[:2] for line in cells(same, "training"))
    assert "last loss" not in dict(line[:2] for line in cells(other, "training"))
    assert cells(other, "config") == [("path.D", "inf", "16")]


def test_runs_that_were_not_evaluated(tmp_path):
    found = sheet(pair(tmp_path, [], []), "scores")
    assert found.lines == ()
    assert "No run has been evaluated." in found.intro
