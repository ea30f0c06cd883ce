"""Running jobs in waves; a job that several tables need is run once and found again.

A job holds the lock of its directory while it runs. Its command inherits the lock: if the table is
killed, a command that survives keeps it, and the next table waits for that command instead of
starting a second one in the same directory.
"""

import datetime
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from flowexp.files import write_json, write_text
from flowexp.locks import locked
from flowexp.runs.manifest import package_versions, processor
from flowexp.tables.fork_server import ForkedCommand, ForkServer
from flowexp.tables.jobs import TableJob, rewritten, token
from flowexp.tables.progress import state_of
from flowexp.threads import VARIABLES, shared_by, usable_cores

__all__ = ["JobTask", "execute", "hardware", "run_job"]

Launch = Callable[[Sequence[Sequence[str]]], Sequence[bool]]

_PACKAGES = ("flowexp", "torch", "pytorch-lightning", "numpy")
# Elsewhere the system's own libraries do not survive a fork.
_FORKS = sys.platform == "linux"


def execute(
    jobs: Sequence[TableJob], launch: Launch, *, targets: Iterable[TableJob]
) -> list[TableJob]:
    """Run the missing jobs, wave by wave; a failed job stops only those that need it.

    Args:
        jobs: All jobs.
        launch: Runs one job for each list of overrides ``[job=<identity>]``; returns when all have
            ended, with whether each is done.
        targets: Those whose results are needed.

    Returns:
        Those that failed here; another table may have tried them again since.
    """
    waiting = _missing(jobs, targets)
    failed: list[TableJob] = []
    while True:
        ready = [job for job in waiting if all(parent.is_done() for parent in job.needs)]
        if not ready:
            return failed
        ended = launch([[f"job={job.identity}"] for job in ready])
        failed += [job for job, done in zip(ready, ended, strict=True) if not done]
        waiting = [job for job in waiting if job not in ready]


def _missing(jobs: Sequence[TableJob], targets: Iterable[TableJob]) -> list[TableJob]:
    """The jobs that the targets still need."""
    wanted: set[str] = set()

    def want(job: TableJob) -> None:
        if job.identity not in wanted and not job.is_done():
            wanted.add(job.identity)
            for parent in job.needs:
                want(parent)

    for target in targets:
        want(target)
    return [job for job in jobs if job.identity in wanted]


class JobTask:
    """The task that a launcher runs for each job, here or on another computer; it can be pickled.

    A job gets the numbers of threads that are set in the process that made this object, on every
    launcher. Where none is set, jobs that run at once on one machine share its cores.

    Args:
        jobs: Jobs by identity.
        folder: Base of relative directories.
    """

    def __init__(self, jobs: Mapping[str, TableJob], *, folder: Path) -> None:
        self.jobs = dict(jobs)
        self.folder = folder
        self.threads = {name: os.environ.get(name) for name in VARIABLES}

    def __call__(self, config: Mapping[str, Any]) -> bool:
        """Run the job that ``config["job"]`` names; whether it is done."""
        job = self.jobs[config["job"]]
        try:
            os.chdir(self.folder)
            sharing = (config.get("launcher") or {}).get("sharing")
            if any(self.threads.values()):
                sharing = None
            with shared_by(sharing):
                share = None if sharing is None else str(usable_cores())
                for name, given in self.threads.items():
                    value = given or share
                    if value is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = value
                return run_job(job)
        except Exception as error:
            # Launchers treat exceptions differently; the other jobs must go on.
            print(f"flowexp: {job.title}: {error}", file=sys.stderr, flush=True)
            return False


def run_job(job: TableJob) -> bool:
    """Run a job unless it is done; wait if another process is running it, and use its result.

    Returns:
        Whether it is done now.
    """
    job.directory.mkdir(parents=True, exist_ok=True)
    requested = time.time()
    with locked(job.directory / "job.lock") as lock:
        if job.is_done():
            return True
        if state_of(job, since=requested).status == "failed":
            return False
        _prepare(job)
        started = time.time()
        code = _command(job, lock.descriptor)
        if code == 0:
            _mark_done(job, seconds=time.time() - started)
        else:
            _note(job, status="failed", code=code)
        return code == 0


def _prepare(job: TableJob) -> None:
    """Write the recipe of the command and remove what an unfinished attempt left."""
    if job.verb == "eval":
        (job.directory / "results.json").unlink(missing_ok=True)
    run = job.run
    if job.recipe is not None and run is not None:
        places = {token(one): str(one.directory) for one in run.needs}
        config = rewritten(run.config, lambda text: places.get(text, text))
        write_text(job.recipe / "config.yaml", yaml.safe_dump(config, sort_keys=False))
        write_json(job.recipe / "manifest.json", {"choices": dict(run.choices)})
    _note(job, status="running")


def _command(job: TableJob, lock: int) -> int:
    """Run the command with its output in the log; returns the exit code."""
    arguments = job.arguments()
    command = [sys.executable, "-m", "flowexp", *arguments]
    with job.log_file.open("ab") as log:
        log.write(f"{_now()} {shlex.join(command)}\n".encode())
        log.flush()
        process: ForkedCommand | subprocess.Popen[bytes]
        if _FORKS:
            process = _fork_server().start(
                arguments,
                cwd=Path.cwd(),
                env=os.environ,
                stdout=log.fileno(),
                stderr=log.fileno(),
                pass_fds=(lock,),
            )
        else:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ,
                pass_fds=(lock,),
            )
        try:
            return process.wait()
        except BaseException:
            # A training that gets SIGTERM writes a checkpoint first.
            process.terminate()
            process.wait()
            _note(job, status="stopped")
            raise


@cache
def _fork_server() -> ForkServer:
    """The server of this process, started by its first job."""
    return ForkServer()


def _mark_done(job: TableJob, *, seconds: float) -> None:
    content = {
        "identity": job.identity,
        "title": job.title,
        "command": ["flowexp", *job.arguments()],
        "created": _now(),
        "seconds": seconds,
        "hardware": hardware(job),
        "versions": package_versions(_PACKAGES),
        "parents": {key: [one.identity for one in several] for key, several in job.parents.items()},
        "after": [one.identity for one in job.after],
    }
    write_json(job.done_file, content)
    job.status_file.unlink(missing_ok=True)


def _note(job: TableJob, *, status: str, code: int | None = None) -> None:
    content = {"status": status, "since": time.time(), "process": os.getpid(), "code": code}
    write_json(job.status_file, content)


def hardware(job: TableJob) -> str:
    """The processor here, and the accelerators that the training of the job found."""
    manifest = (job.run or job).directory / "manifest.json"
    found = (
        json.loads(manifest.read_text(encoding="utf-8")).get("devices", [])
        if manifest.is_file()
        else []
    )
    accelerators = [str(device) for device in found[1:]]
    return ", ".join([processor(), *accelerators])


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
