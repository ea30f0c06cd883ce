"""``selection=best_of_snapshots`` from training to comparison, as commands."""

import json

import pytest
import torch

from tests.e2e.command import TINY, flowexp

pytestmark = pytest.mark.e2e

SCORED = ("metric=fd_raw", "num_samples=16", "batch_size=16")


def test_the_best_snapshot_is_evaluated_and_never_mixed(tmp_path):
    for seed in (0, 1):
        given = (f"seed={seed}", "trainer.snapshot_kimg=0.1", f"dirs.run=run{seed}")
        trained = flowexp("train", *TINY, *given, cwd=tmp_path)
        assert trained.code == 0, trained.err
        assert "keeping 2 snapshots" in trained.err
    ruined = tmp_path / "run0/snapshots/snapshot-000000007.ckpt"
    content = torch.load(ruined, weights_only=True)
    for average in content["ema"].values():
        next(iter(average.values())).fill_(float("nan"))
    torch.save(content, ruined)
    best = ("selection=best_of_snapshots", "repeats=2")
    few = flowexp("eval", "run=run0", *SCORED, *best, "metric=[fd_raw,kid_efflite0]", cwd=tmp_path)
    assert few.code == 2
    assert "kid_efflite0 needs at least 1000 samples" in few.err
    assert not (tmp_path / "run0/snapshots/scores.json").exists()  # refused before the selection
    done = flowexp("eval", "run=run0", *SCORED, *best, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "snapshot 2 of 2" in done.err
    assert "best of 2 snapshots, 0.128 to 0.224 kimg, by fd_raw_16" in done.out
    scores = json.loads((tmp_path / "run0/snapshots/scores.json").read_text())["scores"]
    chosen, none = scores
    assert none["value"] is None
    first, second = json.loads((tmp_path / "run0/results.json").read_text())["evaluations"]
    assert chosen["snapshot"] == "snapshot-000000004"
    assert first["checkpoint"]["sha256"] == chosen["sha256"]
    assert first["records"][0]["value"] == pytest.approx(chosen["value"])  # the same seeds
    assert second["records"][0]["protocol"]["seeds"] == "16-31"

    again = flowexp("eval", "run=run0", *SCORED, *best, "device=cpu", cwd=tmp_path)
    assert again.code == 0, again.err
    assert "snapshot 1 of 2" not in again.err  # the scores are there

    assert flowexp("eval", "run=run1", *SCORED, cwd=tmp_path).code == 0
    compared = flowexp("compare", "run=run0", "run=run1", cwd=tmp_path)
    assert "FD[raw values] 16 on digits, best of 2 snapshots" in compared.out
    assert "selection: best of 2 snapshots" in " ".join(compared.out.split())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], ["kept no snapshots", "trainer.snapshot_kimg"]),
        (["checkpoint=8"], ["selection", "checkpoint"]),
    ],
)
def test_what_cannot_be_selected_is_refused_before_sampling(trained_run, given, said, tmp_path):
    arguments = [f"run={trained_run}", *SCORED, "selection=best_of_snapshots", *given]
    done = flowexp("eval", *arguments, cwd=tmp_path)
    assert done.code == 2
    assert all(text in done.err for text in said)
    assert not (trained_run / "results.json").exists()
