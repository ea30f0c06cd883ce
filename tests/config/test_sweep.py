"""What is said at the end of a sweep."""

import shlex

import pytest

from flowexp.apps.sweeps import after_training
from flowexp.config.application import Job, launch
from flowexp.errors import JobsFailedError, StoppedError, UsageError

SWEEP = ["dataset=digits", "seed=1,2,3", "-m"]
TWO = ["dataset=digits", "seed=1,2", "-m"]


def run_sweep(folder, monkeypatch, failures, *, arguments=SWEEP):
    """A sweep whose jobs with these numbers fail; the numbers of all jobs that ran."""
    monkeypatch.chdir(folder)
    ran = []

    def job(one: Job):
        ran.append(one.number)
        if one.number in failures:
            raise failures[one.number]
        (one.directory / "config.yaml").write_text("seed: 0")

    launch("train", job, [*arguments, "dirs.sweep='my sweep'"], after_sweep=after_training)
    return ran


def commands(out):
    """The commands in the last rows, by the row's name."""
    return dict(line.split(None, 1) for line in out.rstrip().splitlines()[-3:])


def test_the_last_lines_are_commands_that_score_and_compare(tmp_path, monkeypatch, capsys):
    assert run_sweep(tmp_path, monkeypatch, {}) == [0, 1, 2]
    said = commands(capsys.readouterr().out)
    assert said["sweep"] == "3 of 3 runs trained, in my sweep"
    assert shlex.split(said["score"]) == ["flowexp", "eval", "run='my sweep'"]
    assert shlex.split(said["compare"]) == ["flowexp", "compare", "my sweep"]


def test_what_failed_is_named_in_a_line_each_and_the_rest_is_kept(tmp_path, monkeypatch, capsys):
    failures = {0: OSError(28, "No space left"), 2: UsageError("too big.", key="trainer.x")}
    with pytest.raises(JobsFailedError):
        run_sweep(tmp_path, monkeypatch, failures)
    said = capsys.readouterr()
    assert said.err.rstrip().splitlines()[-3:] == [
        "flowexp: 2 of 3 jobs failed:",
        "  job 0 (seed=1): OSError: [Errno 28] No space left",
        "  job 2 (seed=3): trainer.x: too big.",
    ]
    assert commands(said.out)["sweep"] == "1 of 3 runs trained, in my sweep"


def test_a_sweep_of_refused_jobs_leaves_nothing_and_is_wrong_use(tmp_path, monkeypatch):
    refused = {number: UsageError("no data.", key="dataset.root") for number in range(2)}
    with pytest.raises(UsageError, match="no data"):
        run_sweep(tmp_path, monkeypatch, refused, arguments=TWO)
    assert list(tmp_path.iterdir()) == []


def test_a_stop_is_no_failure(tmp_path, monkeypatch, capsys):
    with pytest.raises(StoppedError):
        run_sweep(tmp_path, monkeypatch, {1: StoppedError("stopped by SIGTERM")}, arguments=TWO)
    assert "jobs failed" not in capsys.readouterr().err


def test_scored_runs_are_only_compared(tmp_path, monkeypatch, capsys):
    for number in (0, 1):
        (tmp_path / "my sweep" / str(number)).mkdir(parents=True)
        (tmp_path / "my sweep" / str(number) / "results.json").write_text("{}")
    run_sweep(tmp_path, monkeypatch, {}, arguments=TWO)
    said = capsys.readouterr().out
    assert "flowexp compare 'my sweep'" in said
    assert "flowexp eval" not in said
