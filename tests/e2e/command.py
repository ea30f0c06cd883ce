"""The installed command, run as a user runs it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from flowexp.tables.fork_server import ForkServer
from tests.two_processes import places_of_two

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


@cache
def shared_server() -> ForkServer:
    """The server of this test worker, started by its first command."""
    # A suite that was started in the background has inherited that Ctrl-C is ignored.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    server = ForkServer()
    signal.signal(signal.SIGINT, inherited)
    return server


class Command:
    """A command in a session of its own, to be interrupted or killed as a whole.

    Args:
        arguments: Verb and overrides.
        cwd: Where.
        env: The whole environment.
    """

    def __init__(self, arguments: list[str], *, cwd: Path, env: dict[str, str]) -> None:
        self._out, self._err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        self._process = shared_server().start(
            arguments,
            cwd=cwd,
            env=env,
            stdout=self._out.fileno(),
            stderr=self._err.fileno(),
            start_new_session=True,
        )
        self.pid, self.poll = self._process.pid, self._process.poll
        self.out = self.err = ""

    def wait(self, timeout: float = 240.0) -> int:
        """The exit code; raises TimeoutError, and lets the command run on, after some seconds."""
        code = self._process.wait(timeout)
        if not self._out.closed:
            self.out, self.err = map(_read, (self._out, self._err))
        return code


def _read(stream: IO[str]) -> str:
    with stream:
        stream.seek(0)
        return stream.read()


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
    environment = _environment(cwd, env)
    overrides = [*map(str, arguments)]
    if not fresh:
        command = Command(overrides, cwd=cwd, env=environment)
        try:
            return Outcome(command.wait(timeout), command.out, command.err)
        except TimeoutError:
            os.killpg(command.pid, signal.SIGKILL)
            raise
    done = subprocess.run(
        [*FLOWEXP, *overrides],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def start(*arguments, cwd: Path, env: dict[str, str] | None = None) -> Command:
    """Start one command in its own process group, to be interrupted or killed later."""
    return Command([*map(str, arguments)], cwd=cwd, env=_environment(cwd, env))


def shared_by_two(*arguments, cwd: Path) -> Outcome:
    """Run one command in two processes, with the variables that torchrun sets for each.

    Returns:
        The first process's outcome; the second has ended well and printed nothing.
    """
    first, second = (start(*arguments, cwd=cwd, env=place) for place in places_of_two())
    assert second.wait() == 0, second.err
    assert second.out == ""
    return Outcome(first.wait(), first.out, first.err)


def _environment(cwd: Path, more: dict[str, str] | None = None) -> dict[str, str]:
    # Wide, so that sentences are in one line; tests/apps holds the verbs to 80 columns.
    wide = {"COLUMNS": "240"}
    return {**os.environ, **wide, "FLOWEXP_CACHE": str(cwd / ".cache"), **(more or {})}


def wait_for(condition, *, seconds: float = 120.0) -> None:
    """Wait until ``condition()`` is true; fail loudly if it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the awaited condition never came true")
        time.sleep(0.01)
