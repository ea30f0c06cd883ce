"""What a user types to look at runs."""

import json
import re
import shlex
import shutil

import pandas
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
    assert "Not comparable" in done.out
    assert "n_gen: 40 and 30" in done.out
    assert "parameters" in done.out


def test_the_comparison_as_a_file(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    out = tmp_path / "x" / "comparison.csv"
    assert main(["compare", "run=a", "run=b", f"out={out}"]) == 0
    frame = pandas.read_csv(out)
    assert frame["run"].tolist() == ["a", "b"]
    assert frame["n_gen"].tolist() == [40, 30]
    assert frame["value"].notna().all()
    assert main(["compare", "a", "b", f"out={tmp_path}/comparison.md"]) == 0
    assert (tmp_path / "comparison.md").read_text().startswith("# Configuration")


@pytest.fixture(scope="module")
def swept(trained_once, tmp_path_factory):
    """A folder with two seeds of a run, and a third whose training has no checkpoint."""
    folder = tmp_path_factory.mktemp("swept") / "my sweep"
    for seed in range(3):
        shutil.copytree(trained_once, folder / str(seed))
        config = (folder / str(seed) / "config.yaml").read_text()
        changed = re.sub(r"^seed: 0$", f"seed: {seed}", config, flags=re.MULTILINE)
        (folder / str(seed) / "config.yaml").write_text(changed)
    shutil.rmtree(folder / "2" / "checkpoints")
    return folder


def test_every_run_of_a_sweep_is_scored_once_and_compared(swept, monkeypatch, capsys):
    monkeypatch.chdir(swept.parent)
    few = ["metric=fd_raw", "num_samples=30"]
    assert main(["eval", "run=my sweep/1", *few]) == 0
    capsys.readouterr()
    assert main(["eval", "run=my sweep", *few]) == 1
    said = capsys.readouterr()
    assert "run 1 of 3: my sweep/0" in said.out
    assert said.out.count("already stored") == 1
    assert said.out.rstrip().endswith("compare  flowexp compare 'my sweep'")
    assert "1 of 3 jobs failed:" in said.err
    assert "has no checkpoint yet" in said.err.splitlines()[-1]
    stored = [json.loads((swept / n / "results.json").read_text())["evaluations"] for n in "01"]
    assert [len(evaluations) for evaluations in stored] == [1, 1]
    assert main(["compare", "my sweep"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"FD\[raw values\] 30 on digits", shown)
    assert re.search(r"0, 1 +[\d.]+ ± [\d.]+ +2 ", shown)
    assert "not scored" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_verb_that_takes_one_run_names_those_of_a_sweep(swept, monkeypatch, capsys):
    monkeypatch.chdir(swept.parent)
    assert main(["sample", "my sweep", "seeds=0-3"]) == 2
    said = capsys.readouterr().err
    assert "my sweep holds 3 runs (0, 1, 2), but sample takes one run" in said
    given = shlex.split(said.rpartition("Name a run: flowexp ")[2])
    assert main([*given, "grid=false"]) == 0
    assert main(["sample", str(swept / "1"), "seeds=0-3", "grid=false"]) == 0


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
        (["compare"], ["runs", "flowexp compare run=a run=b, or flowexp compare SWEEPDIR"]),
        (["report"], ["runs", "flowexp report DIR"]),
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
