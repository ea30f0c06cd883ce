"""The installed command, run as a user runs it."""

import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

FLOWEXP = [sys.executable, "-m", "flowexp"]

# A class-conditional run on real 8 x 8 digits that takes a few seconds.
TINY = (
    "dataset=digits",
    "network.model_channels=8",
    "network.pixel_unshuffle=1",
    "trainer.max_kimg=0.256",
    "trainer.batch_size=32",
    "trainer.log_every=1",
    "sampler.steps=3",
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str
    cpu_seconds: float


def flowexp(*arguments, cwd: Path, timeout: float = 240, env: dict[str, str] | None = None):
    """Run one command in ``cwd`` and wait for it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "FLOWEXP_CACHE": str(cwd / ".cache"), **(env or {})}
    done = subprocess.run(
        [*FLOWEXP, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Outcome(done.returncode, done.stdout, done.stderr, cpu)


def start(*arguments, cwd: Path) -> subprocess.Popen:
    """Start one command in its own process group, to be killed later."""
    environment = {**os.environ, "FLOWEXP_CACHE": str(cwd / ".cache")}
    return subprocess.Popen(
        [*FLOWEXP, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


def wait_for(condition, *, seconds: float = 120.0) -> None:
    """Wait until ``condition()`` is true; fail loudly if it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the awaited condition never came true")
        time.sleep(0.01)
