"""What a user types to look at runs."""

import csv
import io
import json
import shutil

import pytest

from flowexp.cli import main
from tests.e2e.command import flowexp
from tests.tables.test_results import TABLE

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def runs(trained_once, tmp_path_factory):
    """Two runs in a folder: one with a score of 40 samples, one with a score of 30."""
    folder = tmp_path_factory.mktemp("compared")
    for name, count in (("a", 40), ("b", 30)):
        shutil.copytree(trained_once, folder / name)
        scored = flowexp("eval", f"run={name}", "metric=fd_raw", f"num_samples={count}", cwd=folder)
        assert scored.code == 0, scored.err
    return folder


def test_two_runs_side_by_side(runs):
    done = flowexp("compare", "run=a", "run=b", cwd=runs)
    assert done.code == 0, done.err
    assert "The configurations are the same." in done.out
    assert "not comparable" in done.out
    assert "n_gen: 40 and 30" in done.out
    assert "parameters" in done.out


def test_the_comparison_as_a_file(runs, tmp_path):
    out = tmp_path / "x" / "comparison.csv"
    done = flowexp("compare", "run=a", "run=b", "format=csv", f"out={out}", cwd=runs)
    assert done.code == 0, done.err
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    means = [row for row in rows if row["key"].endswith("mean")]
    assert [bool(row["a"]) for row in means] == [True, False]
    assert [bool(row["b"]) for row in means] == [False, True]


def test_help_and_config_work_without_a_run(tmp_path):
    for verb in ("compare", "report"):
        shown = flowexp(verb, "--help", cwd=tmp_path)
        assert shown.code == 0, shown.err
        assert f"flowexp {verb}" in shown.out
        assert "runs: ???" in flowexp(verb, "--cfg", "job", cwd=tmp_path).out
    assert list(tmp_path.iterdir()) == []


def test_the_report_lies_in_the_run(runs):
    done = flowexp("report", "a", cwd=runs)
    assert done.code == 0, done.err
    assert "a/report.html" in done.out
    text = (runs / "a" / "report.html").read_text()
    assert "40 on digits" in text
    assert "data:image/svg+xml;base64" in text
    assert "data:image/png;base64" in text


def test_a_report_of_runs_and_a_table(runs, tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(TABLE.to_dict()))
    done = flowexp("report", "a", "b", tmp_path / "t.json", f"out={tmp_path}/r.html", cwd=runs)
    assert done.code == 0, done.err
    text = (tmp_path / "r.html").read_text()
    assert TABLE.title in text
    assert "Comparison" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compare", "run=a"], ["nothing to compare", "run=b"]),
        (["compare"], ["runs", "must be given"]),
        (["compare", "run=a", "run=a"], ["named twice"]),
        (["compare", "run=a", "run=nowhere"], ["nowhere is not a run directory"]),
        (["compare", "run=a", "run=b", "format=makdown"], ["Did you mean markdown"]),
        (["compare", "run=a", "runs=[b]"], ["two ways"]),
        (["compare", "-m", "run=a,b"], ["Leave out -m"]),
        (["report", "a", "grids=0"], ["grids"]),
        (["report", "a", "gird=3"], ["gird", "grids"]),
        (["report", "a/config.yaml"], ["not a result of flowexp table"]),
        (["report", "a", "out=a/config.yaml/x.html"], ["out", "cannot be written"]),
    ],
)
def test_mistakes_are_answered_in_one_paragraph(runs, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(runs)
    code = main(arguments)
    said = capsys.readouterr().err
    assert code == 2, said
    for text in says:
        assert text in said
