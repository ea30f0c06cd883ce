"""The installed command, run as a user runs it."""

import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.warm import warm

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


def flowexp(
    *arguments,
    cwd: Path,
    timeout: float = 240,
    env: dict[str, str] | None = None,
    fresh: bool = False,
):
    """Run one command in ``cwd`` and wait for it.

    Args:
        arguments: Verb and overrides.
        cwd: Where.
        timeout: Seconds.
        env: Further environment variables.
        fresh: Start the interpreter anew, as a shell does. It matters where imports, the time they
            take or the entry point itself are the subject; elsewhere a fork saves the imports.
    """
    environment = {**os.environ, "FLOWEXP_CACHE": str(cwd / ".cache"), **(env or {})}
    told = [*map(str, arguments)]
    if not fresh:
        return Outcome(*warm().run(told, cwd=cwd, env=environment, timeout=timeout))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*FLOWEXP, *told],
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


def start(*arguments, cwd: Path, stderr: int = subprocess.DEVNULL) -> subprocess.Popen:
    """Start one command in its own process group, to be interrupted or killed later."""
    environment = {**os.environ, "FLOWEXP_CACHE": str(cwd / ".cache")}
    return subprocess.Popen(
        [*FLOWEXP, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
        env=environment,
        start_new_session=True,
        # A suite that was started in the background has inherited that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, *, seconds: float = 120.0) -> None:
    """Wait until ``condition()`` is true; fail loudly if it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the awaited condition never came true")
        time.sleep(0.01)
