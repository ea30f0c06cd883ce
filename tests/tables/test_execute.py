"""Jobs run once, wait for each other, and go on where they were stopped; commands are played."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from flowexp.locks import FileLock, locked
from flowexp.tables import execute
from flowexp.tables.execute import run_job
from flowexp.tables.jobs import all_jobs
from flowexp.tables.progress import plain_lines, state_of
from flowexp.tables.results import table_result
from tests.tables.files import job, table
from tests.tables.planned import plan

JOBS = {
    "teacher": job(),
    "child": job(parents={"init": "teacher"}),
    "other": job("optimizer.lr=1e-3"),
}
ROWS = [{"label": "a", "job": "child"}, {"label": "b", "job": "other"}]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    return plan(tmp_path_factory.mktemp("planned"), table(ROWS, jobs=JOBS))


@pytest.fixture
def started(monkeypatch, planned, tmp_path):
    """The titles of the commands that were started; those in ``failing`` fail."""

    class Started(list):
        failing = ()

    titles = Started()
    monkeypatch.chdir(tmp_path)

    def command(job, lock):
        assert state_of(job).status == "running"
        titles.append(job.title)
        if job.verb == "train":
            (job.directory / "metrics.jsonl").write_text('{"step": 1, "kimg": 0.5}\n{"step"')
        return 1 if job.title in titles.failing else 0

    monkeypatch.setattr(execute, "_command", command)
    yield titles
    for one in all_jobs(planned.rows):
        for file in (one.done_file, one.status_file):
            file.unlink(missing_ok=True)


def run_all(planned, failed=()):
    """The sizes of the waves; ``failed`` are the titles that are to be told."""
    jobs = {job.identity: job for job in all_jobs(planned.rows)}
    waves = []

    def launch(overrides):
        waves.append(len(overrides))
        task = execute.JobTask(jobs, folder=Path.cwd())
        return [task({"job": text.removeprefix("job=")}) for (text,) in overrides]

    targets = [target for row in planned.rows for target in row.targets]
    told = execute.execute(list(jobs.values()), launch, targets=targets)
    assert [job.title for job in told] == [*failed]
    return waves


def test_waves_go_from_parents_to_children_and_nothing_is_done_twice(planned, started):
    assert run_all(planned) == [2, 2, 1]
    assert len(started) == len(set(started)) == 5
    assert started.index("a (teacher): train, seed 0") < started.index("a (child): train, seed 0")
    assert run_all(planned) == []
    assert len(started) == 5


def test_a_failing_job_stops_only_what_needs_it(planned, started):
    started.failing = ("a (teacher): train, seed 0",)
    run_all(planned, failed=started.failing)
    assert sorted(started) == sorted(
        ["a (teacher): train, seed 0", "b (other): train, seed 0", "b: eval, seed 0"]
    )
    teacher = next(j for j in all_jobs(planned.rows) if j.title.startswith("a (teacher)"))
    assert state_of(teacher).status == "failed"
    started.failing = ()
    started.clear()
    run_all(planned)
    assert started == ["a (teacher): train, seed 0", "a (child): train, seed 0", "a: eval, seed 0"]


@pytest.mark.parametrize(
    ("own", "sharing", "threads", "jobs"),
    [("3", None, "3", None), (None, None, None, None), ("3", 2, "3", None), (None, 2, "4", "2")],
)
def test_a_job_is_told_the_threads_of_the_table_or_its_share_of_the_cores(
    own, sharing, threads, jobs, planned, started, monkeypatch
):
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    told = []
    names = ("OMP_NUM_THREADS", "FLOWEXP_SHARED_BY")
    monkeypatch.setattr(
        execute, "_command", lambda job, lock: told.extend(map(os.environ.get, names)) or 0
    )
    training = planned.rows[1].evaluations[0].run
    monkeypatch.setenv("OMP_NUM_THREADS", own or "")
    if own is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    task = execute.JobTask({training.identity: training}, folder=Path.cwd())
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert task({"job": training.identity, "launcher": {"sharing": sharing}})
    assert told == [threads, jobs]
    assert "FLOWEXP_SHARED_BY" not in os.environ


def test_failed_and_missing_rows_are_named(planned, started):
    started.failing = ("b (other): train, seed 0",)
    run_all(planned, failed=started.failing)
    for row in planned.rows:
        for job_ in row.evaluations:
            job_.done_file.unlink(missing_ok=True)
    found = table_result(planned.file, planned.rows, scoring=planned.scoring, budget="full").rows
    assert [row.status for row in found] == ["missing", "failed"]
    assert found[1].log.endswith("job.log")
    assert found[0].log is None
    assert found[0].measured is found[1].measured is None


def test_the_marker_tells_how_the_job_came_about(planned, started):
    run_all(planned)
    evaluation = planned.rows[0].evaluations[0]
    content = json.loads(evaluation.done_file.read_text())
    assert content["identity"] == evaluation.identity
    assert content["parents"] == {"run": [evaluation.run.identity]}
    assert content["command"][:2] == ["flowexp", "eval"]
    assert content["versions"]["flowexp"]
    recipe = evaluation.recipe / "config.yaml"
    teacher = evaluation.run.parents["init"][0]
    assert f"init: {teacher.directory}" in recipe.read_text()


def test_a_marker_of_another_identity_is_none(planned, started):
    evaluation = planned.rows[0].evaluations[0]
    evaluation.directory.mkdir(parents=True, exist_ok=True)
    for content in ('{"identity": "other"}', "{", "[]"):
        evaluation.done_file.write_text(content)
        assert not evaluation.is_done()


def test_what_an_earlier_table_noted_is_not_running_now(planned, started):
    training = planned.rows[1].evaluations[0].run
    training.directory.mkdir(parents=True, exist_ok=True)
    execute._note(training, status="running")
    (training.directory / "metrics.jsonl").write_text('{"step": 1, "kimg": 0.5}\n{"step"')
    state = state_of(training, since=time.time() - 60)
    assert (state.status, state.progress()) == ("running", "0.5/0.64 kimg")
    assert state_of(training, since=time.time() + 60).status == "waiting"
    assert list(plain_lines([training], ["waiting"], [state])) == [
        "[0/1] running b (other): train, seed 0"
    ]
    assert list(plain_lines([training], ["running"], [state])) == []


def _run_announced(job, code, begin, waits, started, told):
    acquire = FileLock.acquire
    begin.wait(timeout=60)

    def announced(lock, *, wait):
        waits.release()
        return acquire(lock, wait=wait)

    def command(job, lock):
        started.release()
        return code

    FileLock.acquire, execute._command = announced, command
    told.put(run_job(job))


@pytest.mark.parametrize("code", [0, 1])
def test_two_processes_run_a_job_once_and_tell_the_same_of_it(code, planned, started):
    training = planned.rows[1].evaluations[0].run
    training.directory.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    begin, waits, commands = context.Event(), context.Semaphore(0), context.Semaphore(0)
    told = context.Queue()
    processes = [
        context.Process(target=_run_announced, args=(training, code, begin, waits, commands, told))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    # taken only now: a forked process would hold the lock with us
    with locked(training.directory / "job.lock"):
        begin.set()
        assert all(waits.acquire(timeout=60) for _ in processes)
    assert [told.get(timeout=60) for _ in processes] == [code == 0] * 2
    for process in processes:
        process.join(timeout=60)
    assert commands.acquire(timeout=60)
    assert not commands.acquire(block=False)
    assert training.is_done() == (code == 0)


def test_a_job_that_failed_before_is_tried_again(planned, started):
    training = planned.rows[1].evaluations[0].run
    started.failing = (training.title,)
    assert not run_job(training)
    assert not run_job(training)
    started.failing = ()
    assert run_job(training)
    assert started == [training.title] * 3
