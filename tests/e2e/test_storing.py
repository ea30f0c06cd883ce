"""A number is seen before it is stored, and what hinders the storing is said."""

import errno
import importlib
import json
import os
from unittest.mock import Mock

import pytest
import yaml

from flowexp.cli import main
from flowexp.files import warn_without_cache

pytestmark = pytest.mark.e2e

EVAL = ("metric=[fd_raw]", "num_samples=16", "dirs.run=out")


@pytest.fixture
def evaluate(trained_run, tmp_path, monkeypatch, capfd):
    """``flowexp eval`` of a run in this process: exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("flowexp.locks._warned", False)
    warn_without_cache.cache_clear()

    def run(*more):
        capfd.readouterr()
        code = main(["eval", f"run={trained_run}", *EVAL, *more])
        printed = capfd.readouterr()
        assert "FD[raw values] 16 on digits" in printed.out
        return code, printed.out, printed.err

    return run


def stored(*files):
    return [len(json.loads(file.read_text())["evaluations"]) for file in files]


def test_without_locks_and_cache_everything_is_done_with_a_warning_each(
    evaluate, trained_run, tmp_path, monkeypatch
):
    error = OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=error))
    monkeypatch.setenv("FLOWEXP_CACHE", "/proc/version/cache")
    code, _, err = evaluate()
    assert code == 0, err
    assert err.count("has no locks") == 1
    assert err.count("Set FLOWEXP_CACHE") == 1
    assert stored(trained_run / "results.json", tmp_path / "out" / "results.json") == [1, 1]


def test_a_score_is_in_the_tensorboard_of_its_run_at_the_step_of_the_weights(evaluate, trained_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    file = trained_run / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["logger"] = {"tb": {"_target_": "flowexp.training.TensorBoardLogger"}}
    file.write_text(yaml.safe_dump(config))
    code, _, err = evaluate()
    assert code == 0, err
    (record,) = json.loads((trained_run / "results.json").read_text())["evaluations"][-1]["records"]
    events = EventAccumulator(str(trained_run / "tensorboard")).Reload()
    (score,) = events.Scalars(record["key"])
    assert (score.step, score.value) == (8, pytest.approx(record["value"]))


@pytest.mark.parametrize("damaged", [b"half a fi", b"\xff\xfe"])
def test_a_results_file_that_cannot_be_added_to_loses_no_number(
    evaluate, trained_run, tmp_path, damaged
):
    results = trained_run / "results.json"
    results.write_bytes(damaged)
    code, out, err = evaluate("num_samples=8", "repeats=2", "num_samples=16")
    assert code == 1
    assert f"not stored in {results}" in err
    assert "holds no results" in err
    assert "2 seed ranges" in out
    assert results.read_bytes() == damaged
    assert stored(tmp_path / "out" / "results.json") == [2]
    assert (tmp_path / "out" / "grid.png").is_file()


def test_a_run_whose_files_cannot_be_written_is_evaluated(evaluate, trained_run, tmp_path):
    for name in ("log.txt", "results.json"):
        (trained_run / name).unlink(missing_ok=True)
        (trained_run / name).mkdir()
    code, _, err = evaluate()
    assert code == 1
    assert err.count(f"no log in {trained_run / 'log.txt'}") == 1
    assert f"not stored in {trained_run / 'results.json'}" in err
    assert stored(tmp_path / "out" / "results.json") == [1]


def test_a_full_disk_loses_no_number(evaluate, trained_run, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    module = importlib.import_module("flowexp.evaluation.results_file")
    monkeypatch.setattr(module, "write_json", Mock(side_effect=full))
    code, _, err = evaluate()
    assert code == 1
    assert "No space left on device" in err
    assert not (trained_run / "results.json").exists()
