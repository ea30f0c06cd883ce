"""Snapshots: when they are written, what they hold, and that nothing removes them."""

from pathlib import Path

import pytest
import torch

from flowexp.errors import UsageError
from flowexp.runs import RunDirectory, read_checkpoint
from flowexp.runs.weights import stored_weights
from flowexp.training import TrainingInterrupted
from tests.training.test_fit import SignalAt, assert_same_state
from tests.training.tiny import tiny_settings, train

# 16 images a step: the first steps with 100, 200 and 300 images
STEPS = [7, 13, 19]


def names(folder: Path) -> list[str]:
    return [file.stem for file in RunDirectory(folder).kept_snapshots()]


def test_one_at_every_multiple_and_none_is_removed(tmp_path: Path) -> None:
    settings = tiny_settings(snapshot_kimg=0.1, keep_checkpoints=0, checkpoint_kimg=0.016)
    train(tmp_path / "run", settings=settings)
    assert names(tmp_path / "run") == [f"snapshot-{step:09d}" for step in STEPS]
    train(tmp_path / "plain")
    assert_same_state(tmp_path / "plain", tmp_path / "run")
    assert names(tmp_path / "plain") == []


def test_multiples_do_not_drift_and_the_last_is_at_the_end() -> None:
    # EDM on CIFAR-10: 2500 kimg are 4882.8 steps of 512 images, and the training has 390,625
    settings = tiny_settings(max_kimg=200_000, batch_size=512, snapshot_kimg=2500)
    assert settings.snapshots_after(4882) == 0
    assert settings.snapshots_after(4883) == 1
    assert settings.snapshots_after(settings.total_steps - 1) == 79
    assert settings.snapshots_after(settings.total_steps) == 80


def test_it_holds_the_averages_and_is_found_by_name(tmp_path: Path) -> None:
    train(tmp_path / "run", settings=tiny_settings(snapshot_kimg=0.08, keep_checkpoints=None))
    run = RunDirectory(tmp_path / "run")
    # step 20 has a snapshot and a checkpoint
    for name in ("main", "power"):
        state, loaded = stored_weights(run, weights=name, checkpoint="snapshot-20")
        expected, _ = stored_weights(run, weights=name, checkpoint="20")
        assert loaded.path == run.snapshots / "snapshot-000000020.ckpt"
        assert loaded.kimg == 0.32
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in state)
    content = read_checkpoint(run.snapshots / "snapshot-000000020.ckpt")
    assert list(content["network"]) == ["calls"]  # what no average has
    assert "optimizer" not in content
    with pytest.raises(UsageError, match="snapshot-000000005, snapshot-000000010"):
        run.checkpoint("snapshot-11")
    with pytest.raises(UsageError, match="averages only") as refused:
        stored_weights(run, weights="raw", checkpoint="snapshot-20")
    assert refused.value.key == "weights"


def test_without_averages_the_weights_are_kept(tmp_path: Path) -> None:
    train(tmp_path / "run", settings=tiny_settings(snapshot_kimg=0.32), emas={})
    state, _ = stored_weights(
        RunDirectory(tmp_path / "run"), weights="raw", checkpoint="snapshot-20"
    )
    expected, _ = stored_weights(RunDirectory(tmp_path / "run"), weights="raw")
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_a_resumed_training_has_those_of_an_uninterrupted_one(tmp_path: Path) -> None:
    for length in (0.192, 0.32):
        train(tmp_path / "run", settings=tiny_settings(max_kimg=length, snapshot_kimg=0.1))
    train(tmp_path / "whole", settings=tiny_settings(snapshot_kimg=0.1))
    assert names(tmp_path / "run") == names(tmp_path / "whole")
    for name in names(tmp_path / "run"):
        mine, theirs = (
            read_checkpoint(tmp_path / folder / "snapshots" / f"{name}.ckpt")["ema"]
            for folder in ("run", "whole")
        )
        for average in mine:
            assert all(torch.equal(mine[average][k], theirs[average][k]) for k in mine[average])


def test_a_signal_at_the_moment_of_a_snapshot_does_not_lose_it(tmp_path: Path) -> None:
    settings = tiny_settings(snapshot_kimg=0.1)
    with pytest.raises(TrainingInterrupted, match="at step 7"):
        train(tmp_path / "run", settings=settings, callbacks={"at": SignalAt(7)})
    assert names(tmp_path / "run") == ["snapshot-000000007"]
    train(tmp_path / "run", settings=settings)
    assert names(tmp_path / "run") == [f"snapshot-{step:09d}" for step in STEPS]


def test_the_disk_they_will_take_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="flowexp"):
        train(tmp_path / "run", settings=tiny_settings(snapshot_kimg=0.1))
    assert "keeping 3 snapshots" in caplog.text


@pytest.mark.parametrize("value", [0, -1.0])
def test_a_span_that_is_not_positive_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="snapshot_kimg"):
        tiny_settings(snapshot_kimg=value)
