"""Threads of a training: measured without a trace, recorded, and kept when it is continued."""

import logging
from pathlib import Path

import pytest
import torch

from flowexp.runs import RunDirectory
from flowexp.threads import VARIABLES
from flowexp.training.callbacks import threads
from tests.training.test_fit import StopAt, assert_same_state, rows
from tests.training.tiny import Squares, tiny_settings, train


@pytest.fixture
def two_cores(monkeypatch, caplog):
    """Two cores, no wish, and a training of seconds that counts as a long one."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    monkeypatch.setattr(threads, "_SHORT_SECONDS", 0.0)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    caplog.set_level(logging.INFO, "flowexp")
    return caplog


def said(log) -> list[str]:
    return [r.getMessage() for r in log.records if r.getMessage().startswith("threads: ")]


def test_the_measurement_leaves_no_trace(two_cores, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    train(tmp_path / "auto", settings=tiny_settings(threads="auto"), objective=Squares())
    assert torch.get_num_threads() == before
    count = RunDirectory(tmp_path / "auto").manifest()["threads"]
    (words,) = said(two_cores)
    assert words.startswith(f"threads: {count} of 2 (")
    assert words.endswith("times as fast)")
    # nan_from counts the calls of the objective, and the network has dropout and a counter
    train(tmp_path / "given", settings=tiny_settings(threads=count), objective=Squares())
    assert_same_state(tmp_path / "auto", tmp_path / "given")
    assert rows(tmp_path / "auto") == rows(tmp_path / "given")


def test_a_continued_run_keeps_its_number(two_cores, tmp_path: Path, monkeypatch) -> None:
    settings = tiny_settings(threads="auto")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train(tmp_path / "whole", settings=settings)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "killed", settings=settings, callbacks={"stop": StopAt(7)})
    manifest = RunDirectory(tmp_path / "killed").manifest()
    assert manifest["threads"] == 1
    assert manifest["devices"][0].endswith("CPU, 1 threads")
    monkeypatch.delenv("OMP_NUM_THREADS")
    train(tmp_path / "killed", settings=settings)
    assert said(two_cores)[-1] == "threads: 1 of 2, as at the start of this run"
    assert_same_state(tmp_path / "whole", tmp_path / "killed")
    train(tmp_path / "killed", settings=tiny_settings(threads=2, max_kimg=0.336))
    assert "the run began with 1; results now differ" in said(two_cores)[-1]


def test_a_run_from_before_goes_on_as_it_began(two_cores, tmp_path: Path) -> None:
    train(tmp_path / "run", settings=tiny_settings(max_kimg=0.16))
    assert "threads" not in RunDirectory(tmp_path / "run").manifest()
    train(tmp_path / "run", settings=tiny_settings(threads="auto"))
    assert said(two_cores) == []


def test_what_cannot_be_copied_is_not_measured(two_cores, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise TypeError("not to be copied")

    monkeypatch.setattr(Squares, "__deepcopy__", refuse, raising=False)
    train(tmp_path / "run", settings=tiny_settings(threads="auto", max_kimg=0.032))
    assert "not measured (TypeError)" in said(two_cores)[0]


def test_a_short_training_takes_one_thread(two_cores, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(threads, "_SHORT_SECONDS", 1e9)
    train(tmp_path / "run", settings=tiny_settings(threads="auto", max_kimg=0.032))
    assert said(two_cores) == ["threads: 1 of 2 (a training of 1 s)"]
