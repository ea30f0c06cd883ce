"""A process that has imported what commands import, and forks to run each of them.

More than half of a short command is the import of torch and Lightning. A fork of this process is a
process of its own in every other respect: directory, environment, streams, exit code, memory.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

__all__ = ["Warm", "warm"]


class Warm:
    """The process, seen from a test."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )

    def run(
        self, arguments: list[str], *, cwd: Path, env: dict[str, str], timeout: float
    ) -> tuple[int, str, str, float]:
        """Exit code, what was printed, what was complained, CPU seconds."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            order = {
                "arguments": arguments,
                "cwd": str(cwd),
                "env": env,
                "out": str(out),
                "err": str(err),
                "timeout": timeout,
            }
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            code, seconds = json.loads(self._process.stdout.readline())
            if code == -signal.SIGALRM:
                raise subprocess.TimeoutExpired(arguments, timeout, err.read_text())
            return code, out.read_text(), err.read_text(), seconds


@cache
def warm() -> Warm:
    """The process of this test worker, started by the first command; it ends with the worker."""
    return Warm()


def _serve() -> None:
    import pytorch_lightning  # noqa: F401 - what a command would import itself

    import flowexp.config.application  # noqa: F401

    while line := sys.stdin.readline():
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            _become(order)
        _, status, usage = os.wait4(process, 0)
        seconds = usage.ru_utime + usage.ru_stime
        print(json.dumps([os.waitstatus_to_exitcode(status), seconds]), flush=True)


def _become(order: dict) -> None:
    """The command, in the fork; it leaves as every program does."""
    from flowexp.cli import main

    os.setsid()
    signal.setitimer(signal.ITIMER_REAL, order["timeout"])
    for stream, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, order["out"], os.O_WRONLY | os.O_CREAT),
        (2, order["err"], os.O_WRONLY | os.O_CREAT),
    ):
        file = os.open(name, flags)
        os.dup2(file, stream)
        os.close(file)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.argv = ["flowexp", *order["arguments"]]
    sys.exit(main())


if __name__ == "__main__":
    _serve()
