"""Locks keep processes apart and are freed by death."""

import errno
import os
import signal
import subprocess
import sys
import time
from unittest.mock import Mock

import pytest

from flowexp.errors import UsageError
from flowexp.locks import FileLock, locked
from flowexp.runs import RunDirectory

HOLD = """
import sys, time
from pathlib import Path
from flowexp.locks import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire(wait=True)
if len(sys.argv) > 2:
    import subprocess
    sleep = ["sleep", sys.argv[2]]
    subprocess.Popen(sleep, pass_fds=(lock.descriptor,), stdout=subprocess.DEVNULL)
print("held", flush=True)
time.sleep(60)
"""


def holder(path, *more):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), *more], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_lock_is_exclusive_until_its_holder_is_killed(tmp_path):
    process = holder(tmp_path)
    try:
        assert not FileLock(tmp_path).acquire(wait=False)
    finally:
        kill(process)
    with FileLock(tmp_path) as lock:
        assert lock.acquire(wait=False)


def test_a_child_that_inherits_the_lock_keeps_it(tmp_path):
    kill(holder(tmp_path / "job.lock", "1.5"))
    assert not FileLock(tmp_path / "job.lock").acquire(wait=False)
    started = time.monotonic()
    with locked(tmp_path / "job.lock"):
        assert time.monotonic() - started > 0.2


def test_two_processes_cannot_train_in_one_directory(tmp_path):
    process = holder(tmp_path)
    try:
        with pytest.raises(UsageError, match="another process is training in"):
            RunDirectory.start(tmp_path, config={"seed": 0})
    finally:
        kill(process)
    first = RunDirectory.start(tmp_path, config={"seed": 0})
    # the same process may start again, as a sweep or a test does
    second = RunDirectory.start(tmp_path, config={"seed": 0})
    assert not FileLock(tmp_path).acquire(wait=False)
    del first, second
    assert FileLock(tmp_path).acquire(wait=False)


def test_only_the_first_rank_locks(tmp_path, monkeypatch):
    first = RunDirectory.start(tmp_path, config={"seed": 0})
    monkeypatch.setenv("RANK", "1")
    RunDirectory.start(tmp_path, config={"seed": 0})
    assert first.path == tmp_path


def test_a_lock_that_is_not_held_has_no_file(tmp_path):
    with pytest.raises(RuntimeError, match="not held"):
        _ = FileLock(tmp_path).descriptor


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_where_there_are_no_locks_it_goes_on_with_one_warning(code, tmp_path, monkeypatch, caplog):
    def flock(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr("flowexp.locks._warned", False)
    first = RunDirectory.start(tmp_path / "run", config={"seed": 0})
    with locked(tmp_path / "job.lock"), FileLock(tmp_path) as lock:
        assert lock.acquire(wait=False)
    assert first.config() == {"seed": 0}
    (record,) = caplog.records
    assert f"the file system of {tmp_path / 'run'} has no locks" in record.getMessage()


def test_a_lock_that_another_holds_is_no_missing_lock(tmp_path, monkeypatch, caplog):
    for code in (errno.EAGAIN, errno.EACCES):
        error = OSError(code, os.strerror(code))
        monkeypatch.setattr("fcntl.flock", Mock(side_effect=error))
        assert not FileLock(tmp_path).acquire(wait=False)
    assert caplog.records == []
