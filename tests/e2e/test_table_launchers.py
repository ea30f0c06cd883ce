"""One table through every launcher, in jobs of two processes, and stopped by Ctrl-C."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.e2e.command import flowexp, start, wait_for
from tests.e2e.test_launchers import PLUGINS, installed
from tests.tables.files import job, table, write

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROWS = [
    {"label": "2 steps", "job": "teacher", "published": 1.0},
    {"label": "3 steps", "job": "teacher", "eval": ["sampler.steps=3"]},
]
COMMAND = ("table", "mine/shared", "budget=full", "--config-dir", "mine")
TWO_PROCESSES = ("devices=2", "accelerator=cpu", "strategy=ddp")


def outcome(folder: Path):
    """What a table's JSON says but for wall times, weights and thread counts of its trainings."""
    content = json.loads((folder / "outputs/tables/mine_shared_full.json").read_text())
    for row in content["rows"]:
        assert row["status"] == "done"
        del row["measured"]["seconds"], row["measured"]["training_seconds"]
    (run,) = (folder / "outputs/jobs/train").iterdir()
    weights = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["network"]
    return content, weights, json.loads((run / "manifest.json").read_text())["devices"]


def make(folder: Path, *arguments, rows=ROWS):
    write(folder / "mine", "mine/shared", table(rows, jobs={"teacher": job()}))
    done = flowexp(*COMMAND, *arguments, cwd=folder)
    assert done.code == 0, done.err
    return outcome(folder)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # joblib and Ray choose other numbers where none is given.
        patch.setenv("OMP_NUM_THREADS", "2")
        return make(tmp_path_factory.mktemp("local"))


@pytest.mark.parametrize("launcher", list(PLUGINS))
def test_a_table_is_the_same_through_every_launcher(launcher, local, tmp_path, monkeypatch):
    if not installed(launcher):
        pytest.skip(f"the plugin of launcher={launcher} is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    content, weights, devices = make(tmp_path, f"launcher={launcher}")
    assert devices == local[2]
    assert content == local[0]
    assert all(torch.equal(weights[key], value) for key, value in local[1].items())


def test_trainings_of_two_processes_give_the_numbers_of_one(local, tmp_path):
    two_processes = [f"train:trainer.{one}" for one in TWO_PROCESSES]
    content, weights, _ = make(tmp_path, *two_processes, rows=ROWS[:1])
    logs = list(tmp_path.glob("outputs/jobs/train/*/job.log"))
    assert len(logs) == 1
    assert "MEMBER: 2/2" in logs[0].read_text()
    torch.testing.assert_close(weights, local[1], rtol=1e-4, atol=1e-6)
    two, one = content["rows"][0], local[0]["rows"][0]
    # the same job: how many processes share it does not belong to its identity
    assert two["runs"] == one["runs"]
    assert two["measured"]["values"] == pytest.approx(one["measured"]["values"], rel=1e-5)


def test_ctrl_c_stops_the_jobs_and_the_same_command_continues(tmp_path):
    long = job("trainer.max_kimg=25.6", "trainer.checkpoint_kimg=25.6")
    write(tmp_path / "mine", "mine/shared", table(ROWS[:1], jobs={"teacher": long}))
    process = start(*COMMAND, cwd=tmp_path)
    wait_for(
        lambda: any(f.read_text() for f in tmp_path.glob("outputs/jobs/train/*/metrics.jsonl"))
    )
    # A terminal sends it to the table and to its job.
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 1
    err = process.err
    assert "stopped with 0 of 2 jobs done. The same command runs the others" in err
    assert "Traceback" not in err
    (run,) = tmp_path.glob("outputs/jobs/train/*")
    stopped = json.loads((run / "status.json").read_text())
    assert stopped["status"] == "stopped"
    said = (run / "job.log").read_text()
    assert "flowexp: stopped by SIGINT at step" in said
    assert "failed" not in said
    assert "Traceback" not in said
    step = int(said.split("at step ")[1].split()[0])
    assert step < 400
    done = flowexp(*COMMAND, cwd=tmp_path)
    assert done.code == 0, done.err
    steps = [json.loads(row)["step"] for row in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 400
