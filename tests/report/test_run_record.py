"""A run directory is read as it was left."""

import json
import math

import pytest

from flowexp.errors import UsageError
from flowexp.report.run_record import (
    commands,
    distinct_names,
    manifest_facts,
    read_run,
    training_facts,
)
from tests.report.runs import entry, make_run, rows


def test_everything_in_the_directory_is_read(tmp_path):
    entries = [entry(33.0, directory="/x/eval/1"), entry(35.0, directory="/x/eval/1")]
    entries[1]["records"][0]["protocol"]["seeds"] = "200-399"
    run = read_run(make_run(tmp_path / "a", entries=entries, grids=(10, 2, 0.5)), name="a")
    assert [grid.kimg for grid in run.grids] == [0.5, 2.0, 10.0]
    assert run.last("train/loss") == pytest.approx(10 / 80)
    assert math.isnan(run.last("val/loss"))
    assert len(run.evaluations) == 1


def test_seed_ranges_of_one_command_are_one_evaluation(tmp_path):
    entries = [
        entry(33.0, directory="/x/eval/1", seeds="0-199"),
        entry(35.0, directory="/x/eval/1", seeds="200-399"),
        entry(50.0, directory="/x/eval/2"),
        entry(60.0, directory="/x/eval/2", name="kid"),
    ]
    one, two, three = read_run(make_run(tmp_path / "a", entries=entries), name="a").evaluations
    assert one.values == (33.0, 35.0)
    assert one.mean == 34.0
    assert one.spread == pytest.approx(math.sqrt(2.0))
    assert one.seconds == 4.0
    assert math.isnan(two.spread)
    assert (two.values, three.name) == ((50.0,), "kid")


def test_evaluations_without_a_directory_stay_apart(tmp_path):
    entries = [entry(33.0), entry(35.0)]
    for one in entries:
        del one["directory"]
    run = read_run(make_run(tmp_path / "a", entries=entries), name="a")
    assert [e.values for e in run.evaluations] == [(33.0,), (35.0,)]


def test_a_value_that_was_not_finite_stays_so(tmp_path):
    run = read_run(make_run(tmp_path / "a", entries=[entry(math.nan)]), name="a")
    assert math.isnan(run.evaluations[0].mean)


@pytest.mark.parametrize("content", ["{", "[]", '{"evaluations": [{"records": [{"key": "x"}]}]}'])
def test_foreign_results_are_refused(tmp_path, content):
    run = make_run(tmp_path / "a")
    (run / "results.json").write_text(content)
    with pytest.raises(UsageError, match=r"cannot read the results in .*results\.json"):
        read_run(run, name="a")


def test_a_bare_run_is_readable(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0\n")
    run = read_run(folder, name="a")
    assert (run.rows, run.evaluations, run.grids) == ((), (), ())
    assert training_facts(run)["trained"] == "not yet"
    assert manifest_facts(run.manifest) == {"manifest": "none was written"}
    with pytest.raises(UsageError, match="not a run directory"):
        read_run(tmp_path / "b", name="b")


def test_names_are_as_short_as_they_can_be(tmp_path):
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert distinct_names(paths) == ["a/run", "b/run"]
    assert distinct_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    with pytest.raises(UsageError, match="named twice"):
        distinct_names([tmp_path / "a", tmp_path / "b" / ".." / "a"])


def test_commands_make_the_run_and_its_evaluations_again(tmp_path):
    entries = [entry(1.0, directory="/x/1"), entry(1.0, directory="/x/2")]
    run = read_run(make_run(tmp_path / "a", entries=entries), name="a")
    assert commands(run) == [
        "flowexp train experiment=digits/edm path.D=inf",
        "flowexp eval run=run num_samples=200",
    ]
    manifest = {"command": ["flowexp", "train", "--config-dir", "my conf", "x=1"]}
    own = read_run(make_run(tmp_path / "b", manifest=manifest), name="b")
    assert commands(own)[0].startswith("flowexp train --config-dir 'my conf' experiment=")


def test_facts_name_the_cost_and_the_parents(tmp_path):
    run = read_run(make_run(tmp_path / "a", metrics=rows(80)), name="a", parameters=557537)
    facts = training_facts(run)
    assert facts["trained"] == "16 of 16 kimg"
    assert facts["images/s"] == "400"
    assert facts["parameters"] == "557,537"
    stated = manifest_facts(run.manifest)
    assert stated["parent 1"] == "role teacher, path outputs/t, sha256 cd"
    assert stated["code"] == "0123456789ab with uncommitted changes"
    by_role = {**run.manifest, "parents": {"teacher": {"path": "outputs/t"}}}
    assert manifest_facts(json.loads(json.dumps(by_role)))["parent teacher"] == "path outputs/t"
