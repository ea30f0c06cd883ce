"""Trainings as a scheduler starts, signals and starts them again."""

import os
import signal
import stat

import pytest
import torch

from tests.e2e.command import TINY, flowexp, shared_server, start, wait_for
from tests.e2e.test_resume import equal, last_step, losses

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

COMMAND = ("train", *TINY, "trainer.max_kimg=3.2", "trainer.checkpoint_kimg=0.96", "callbacks=none")
# A batch job of one task, in which Lightning would believe that it may save and requeue.
SLURM = {
    "SLURM_JOB_ID": "4217",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NNODES": "1",
    "SLURM_NODELIST": "localhost",
}


def tool(folder, name, script):
    file = folder / name
    folder.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def state(run):
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    stored.pop("config")
    return stored


def test_a_scheduler_signals_and_starts_again_and_nothing_of_lightnings_is_kept(tmp_path):
    tool(tmp_path / "bin", "scontrol", 'echo "$@" >> "$CALLS"; kill -KILL $PPID')
    tool(tmp_path / "bin", "srun", "exit 1")
    calls, run = tmp_path / "calls", tmp_path / "run"
    slurm = {**SLURM, "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "CALLS": str(calls)}
    # What Lightning would read, and settings of its own that must not count either.
    slurm |= {"PL_TRAINER_MAX_STEPS": "3", "PL_TRAINER_GRADIENT_CLIP_VAL": "1e-9"}
    planted: list[str] = []
    for sent, step in ((signal.SIGUSR1, 10), (signal.SIGHUP, 40)):
        process = start(*COMMAND, "dirs.run=run", cwd=tmp_path, env=slurm)
        wait_for(lambda s=step, p=process: last_step(run) >= s or p.poll() is not None)
        os.kill(process.pid, sent)
        assert process.wait(timeout=60) == 1, process.err
        assert f"{sent.name}: saving a checkpoint" in process.err
        assert f"stopped by {sent.name} at step" in process.err
        assert state(run)["step"] >= step
        assert [file.name for file in run.rglob("hpc_ckpt*")] == planted
        planted = ["hpc_ckpt_1.ckpt"]
        torch.save({"state_dict": {}}, run / planted[0])
    resumed = flowexp(*COMMAND, "dirs.run=run", cwd=tmp_path, env=slurm)
    assert resumed.code == 0, resumed.err
    assert "trained" in resumed.out
    assert "srun" not in resumed.err
    assert not calls.exists()
    whole = flowexp(*COMMAND, "dirs.run=whole", cwd=tmp_path)
    assert whole.code == 0, whole.err
    assert equal(state(run), state(tmp_path / "whole"))
    assert losses(run) == losses(tmp_path / "whole")


def test_a_signal_stops_the_whole_sweep(tmp_path):
    sweep = [*COMMAND, "seed=1,2", "dirs.sweep=sweep", "-m"]
    process = start(*sweep, cwd=tmp_path)
    wait_for(lambda: last_step(tmp_path / "sweep" / "0") >= 1)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 1
    assert "stopped by SIGTERM at step" in process.err
    assert not (tmp_path / "sweep" / "1" / "checkpoints").exists()


def into_a_closed_pipe(*arguments, cwd):
    """The exit code of a command whose reader has gone before the first line, and its errors."""
    read, write = os.pipe()
    os.close(read)
    with (cwd / "err").open("w+b") as err:
        process = shared_server().start(
            arguments, cwd=cwd, env=os.environ, stdout=write, stderr=err.fileno()
        )
        os.close(write)
        return process.wait(120), (cwd / "err").read_text()


def test_a_training_outlives_the_reader_of_its_output(tmp_path):
    code, err = into_a_closed_pipe("train", *TINY, "callbacks=none", "dirs.run=run", cwd=tmp_path)
    run = tmp_path / "run"
    assert (code, state(run)["step"]) == (0, 8)
    for text in (err, (run / "log.txt").read_text()):
        assert text.count("the output cannot be written any more") == 1
    for shown in (["list"], ["train", "--info", "all"]):
        assert into_a_closed_pipe(*shown, cwd=tmp_path) == (0, "")


def test_a_task_of_several_does_not_train_one_device(tmp_path):
    for place in ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, {"RANK": "1"}):
        done = flowexp("train", *TINY, "dirs.run=run", cwd=tmp_path, env=place)
        assert done.code == 2
        assert f"{next(iter(place))}=1" in done.err
        assert not (tmp_path / "run").exists()
