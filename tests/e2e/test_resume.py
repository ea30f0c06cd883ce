"""Killed at random steps and started again, a run ends as if nothing had happened."""

import json
import os
import random
import shutil
import signal

import pytest
import torch

from tests.e2e.command import TINY, flowexp, start, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

COMMAND = (
    "train",
    *TINY,
    "trainer.max_kimg=3.2",
    "trainer.checkpoint_kimg=0.32",
    "trainer.micro_batch=16",
    "network.dropout=0.1",
    "network.label_dropout=0.1",
    "dataset.hflip=true",
    "path.D=64",
    "coupling=minibatch_ot",
)


def last_step(run) -> int:
    file = run / "metrics.jsonl"
    if not file.is_file():
        return 0
    lines = file.read_text().splitlines()
    try:
        return json.loads(lines[-1])["step"] if lines else 0
    except json.JSONDecodeError:
        return 0


def losses(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if not k.startswith(("time/", "system/"))} for row in rows
    ]


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_three_kills_change_nothing(tmp_path):
    whole = flowexp(*COMMAND, "dirs.run=whole", cwd=tmp_path)
    assert whole.code == 0, whole.err
    killed = tmp_path / "killed"
    rng = random.Random(5)
    kills = 0
    for low in (12, 40, 70):
        step = low + rng.randrange(15)
        process = start(*COMMAND, "dirs.run=killed", cwd=tmp_path)
        wait_for(lambda s=step, p=process: last_step(killed) >= s or p.poll() is not None)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 3, "the run ended before it could be killed"
    resumed = flowexp(*COMMAND, "dirs.run=killed", cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert losses(killed) == losses(tmp_path / "whole")
    a, b = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("whole", "killed")
    )
    for volatile in ("config",):
        a.pop(volatile, None)
        b.pop(volatile, None)
    assert a.keys() == b.keys()
    for key in a:
        assert equal(a[key], b[key]), key


def test_a_finished_run_is_left_alone(trained_run, tmp_path):
    copy = shutil.copytree(trained_run, tmp_path / "run")
    written = ("checkpoints/last.ckpt", "metrics.jsonl")
    before = [(copy / name).read_bytes() for name in written]
    done = flowexp("train", *TINY, "dirs.run=run", cwd=tmp_path)
    assert done.code == 0, done.err
    assert [(copy / name).read_bytes() for name in written] == before


def test_interrupted_by_hand_keeps_its_work(tmp_path):
    process = start(*COMMAND, "trainer.checkpoint_kimg=null", "dirs.run=run", cwd=tmp_path)
    run = tmp_path / "run"
    wait_for(lambda: last_step(run) >= 5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 1
    assert (run / "checkpoints" / "last.ckpt").is_file()
    steps = last_step(run)
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert 0 < stored["step"] <= steps + 1
