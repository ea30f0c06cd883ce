"""Tables through the installed command: killed, shared, failing, and what they say."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.command import flowexp, start, wait_for
from tests.tables.files import job, table, write

pytestmark = pytest.mark.e2e

SMALL = ("trainer.max_kimg=12.8", "trainer.checkpoint_kimg=0.64")
EIGHT = table(
    [
        *({"label": f"teacher, {n}", "job": "teacher", "published": 1.0} for n in "abc"),
        {"label": "teacher, 3 steps", "job": "teacher", "eval": ["sampler.steps=3"]},
        {"label": "child", "job": "child", "published": 2.0},
        {"label": "child, 3 steps", "job": "child", "eval": ["sampler.steps=3"]},
        {"label": "child, 1 + 2 steps", "job": "child", "eval": ["sampler.steps=3"]},
        {"label": "child, raw", "job": "child", "eval": ["weights=raw"]},
    ],
    jobs={
        "teacher": job(*SMALL),
        "child": job(*SMALL, "optimizer.lr=1e-4", parents={"init": "teacher"}),
    },
)
COMMAND = ("table", "mine/eight", "budget=full", "--config-dir", "mine")


def numbers(folder: Path, name="mine_eight_full"):
    """Everything in a table's JSON but wall times."""
    content = json.loads((folder / "outputs" / "tables" / f"{name}.json").read_text())
    for row in content["rows"]:
        if row["measured"] is not None:
            del row["measured"]["seconds"], row["measured"]["training_seconds"]
    return content


def markers(folder: Path):
    return {p: p.read_bytes() for p in (folder / "outputs" / "jobs").glob("*/*/job.json")}


def attempts(folder: Path):
    """How often the command of each job was started."""
    logs = (folder / "outputs" / "jobs").glob("*/*/job.log")
    return {log: log.read_text().count("-m flowexp ") for log in logs}


def training(folder: Path, number: int, *, step: int):
    """Whether the training that was started ``number``-th has come to a step and is not done."""
    runs = sorted((folder / "outputs/jobs/train").glob("*"), key=lambda p: p.stat().st_ctime)
    runs = [run for run in runs if not (run / "job.json").exists()]
    done = len(list((folder / "outputs/jobs/train").glob("*/job.json")))
    if done != number or not runs or not (runs[-1] / "metrics.jsonl").exists():
        return False
    return len((runs[-1] / "metrics.jsonl").read_text().splitlines()) * 5 >= step


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_twice_a_table_ends_as_if_nothing_had_happened(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        write(folder / "mine", "mine/eight", EIGHT)
    done = flowexp(*COMMAND, cwd=whole)
    assert done.code == 0, done.err

    process = start(*COMMAND, cwd=killed)
    wait_for(lambda: training(killed, 0, step=20) or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert markers(killed) == {}

    process = start(*COMMAND, cwd=killed)
    wait_for(lambda: training(killed, 1, step=20) or process.poll() is not None)
    # only the table: the command it started lives on, and the next table waits for it
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = markers(killed)
    # the teacher and its two evaluations
    assert len(before) == 3

    again = flowexp(*COMMAND, cwd=killed)
    assert again.code == 0, again.err
    assert numbers(killed) == numbers(whole)
    assert all(row["status"] == "done" for row in numbers(whole)["rows"])
    after = markers(killed)
    assert len(after) == 7
    assert all(after[path] == content for path, content in before.items())
    assert sum(attempts(whole).values()) == 7
    assert sum(attempts(killed).values()) == 9
    for run in (killed / "outputs/jobs/train").glob("*"):
        rows = (run / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(row)["step"] for row in rows]
        assert steps == sorted(set(steps))
        other = whole / run.relative_to(killed)
        assert weights(run).keys() == weights(other).keys()
        assert all(bool((v == weights(other)[k]).all()) for k, v in weights(run).items())


def weights(run: Path):
    import torch

    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["network"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_tables_at_once_share_their_jobs_and_a_failing_one_is_named(tmp_path):
    rows = [
        {"label": "good", **job(), "published": 1.0},
        {"label": "bad", **job("optimizer.lr=1e-3")},
    ]
    write(tmp_path / "mine", "mine/two", table(rows))
    command = ("table", "mine/two", "budget=full", "--config-dir", "mine")
    dry = flowexp(*command, "dry=commands", cwd=tmp_path)
    assert dry.code == 0, dry.err
    assert "4 jobs, 0 done" in dry.out
    bad = next(line.split()[2] for line in dry.out.splitlines() if "bad: train" in line)
    blocked = tmp_path / bad / "checkpoints"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("not a folder")

    processes = [start(*command, cwd=tmp_path) for _ in range(2)]
    for process in processes:
        assert process.wait() == 1
        assert f"bad: train, seed 0; see {bad}/job.log" in process.err
    good = [row for row in numbers(tmp_path, "mine_two_full")["rows"] if row["status"] == "done"]
    assert [row["label"] for row in good] == ["good"]
    tried = attempts(tmp_path)
    assert sum(n for log, n in tried.items() if bad not in str(log)) == 2

    blocked.unlink()
    mended = flowexp(*command, cwd=tmp_path)
    assert mended.code == 0, mended.err
    after = attempts(tmp_path)
    assert all(after[log] == n for log, n in tried.items() if bad not in str(log))
    written = {path.suffix for path in (tmp_path / "outputs" / "tables").iterdir()}
    assert written == {".json", ".md", ".tex", ".csv", ".html"}
    assert "bad" in mended.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pfgmpp/cifar1"], ["pfgmpp/cifar10"]),
        (["budget=cpu"], ["no table is named", "flowexp table list"]),
        (["rfpp"], ["rfpp/table1", "flowexp table claims only=rfpp"]),
        (["ot_cfm/straightens", "only=no"], ["no arm matches 'no'", "minibatch OT"]),
        (["claims", "dry=maybe"], ["dry", "dry=commands"]),
        (["claim=pfgmpp/robustnes"], ["pfgmpp/robustness"]),
        (["pfgmpp/cifar10", "budget=tiny"], ["budget", "cpu"]),
        (["pfgmpp/cifar10", "budget.max_king=3"], ["budget.max_kimg"]),
        (["pfgmpp/ffhq64", "only=nothing"], ["no row", "D=128"]),
        (["pfgmpp/ffhq64", "train:optimizer.lrr=3"], ["D=128: train", "optimizer.lr"]),
    ],
)
def test_wrong_use_is_answered_in_words(arguments, words, tmp_path):
    done = flowexp("table", *arguments, cwd=tmp_path)
    assert done.code == 2, done.err
    assert "checking" not in done.out or "optimizer" in done.err
    assert all(word in done.err for word in words), done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "outputs").exists()


def test_every_table_and_claim_is_listed(tmp_path):
    done = flowexp("table", "list", cwd=tmp_path)
    assert done.code == 0
    for name in ("edm/table2", "pfgmpp/cifar10", "ot_cfm/straightens"):
        assert name in done.out
