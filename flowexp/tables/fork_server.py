"""Commands as forks of a process that has imported what they import.

Most of a short job is the import of PyTorch and Lightning (three to four seconds). The server
imports them once, checks one command, so that option files and sources have been read, and does
nothing else: it has no threads of its own and no accelerator, so a fork of it behaves like an
interpreter started anew.
"""

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowexp.processes import STOP_SIGNALS

__all__ = ["MODULES", "ForkServer", "ForkedCommand"]

MODULES = (
    "flowexp.config.application",
    "flowexp.evaluation",
    "flowexp.runs.assemble",
    "flowexp.training",
    "timm",
)
"""What trainings and evaluations import."""

_SIZE_BYTES = 8
_MOST_FILES = 8


class ForkedCommand:
    """A command that is running, with ``subprocess.Popen``'s methods.

    It is known by a pipe with two lines: the process id, and later the exit code.
    """

    def __init__(self, report: int) -> None:
        self._report = os.fdopen(report)
        first = self._report.readline()
        if not first:
            raise RuntimeError("the process that starts commands was killed")
        self.pid = int(first)
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for the signal that killed the command.

        Args:
            timeout: Seconds.

        Raises:
            TimeoutError: The command is still running after that time.
        """
        if self._code is None:
            poll = select.poll()
            poll.register(self._report, select.POLLIN)
            if not poll.poll(None if timeout is None else 1000.0 * timeout):
                raise TimeoutError(f"still running after {timeout:g} s")
            # Without a report, whoever waited for the command was killed.
            self._code = int(self._report.readline() or -signal.SIGKILL)
            self._report.close()
        return self._code

    def poll(self) -> int | None:
        """The exit code, or None while the command is running."""
        with suppress(TimeoutError):
            return self.wait(timeout=0.0)
        return None

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class ForkServer:
    """The server, seen from the process that needs commands run; it ends with that process."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair()
        with theirs:
            # In ``__main__``, Python 3.12 would warn of a fork besides threads of BLAS.
            code = f"from {__name__} import serve; serve({theirs.fileno()})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def start(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: int,
        stderr: int,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> ForkedCommand:
        """Start ``flowexp ARGUMENTS`` with an empty standard input, else as ``Popen`` does.

        All files are descriptors; the command keeps those of ``pass_fds`` open until it ends.
        Signals of this process's group do not reach a new session.
        """
        order = {
            "arguments": [*arguments],
            "cwd": str(cwd),
            "env": dict(env),
            "start_new_session": start_new_session,
        }
        text = json.dumps(order).encode()
        read, write = os.pipe()
        size = len(text).to_bytes(_SIZE_BYTES, "big")
        socket.send_fds(self._orders, [size], [write, stdout, stderr, *pass_fds])
        os.close(write)
        self._orders.sendall(text)
        return ForkedCommand(read)

    def close(self) -> None:
        """End the server; commands that are running go on."""
        self._orders.close()
        self._process.wait()


def prepare() -> None:
    """Import and read what commands would import and read; starts no thread and no accelerator."""
    for module in MODULES:
        importlib.import_module(module)
    importlib.import_module("flowexp.config.check").check("train", [])


def serve(descriptor: int) -> None:
    """Start commands until nobody can order any more on the socket ``descriptor``."""
    # A terminal or a scheduler sends them to the whole group; the commands answer, and the server
    # and those who wait for a command stay to report how it ended.
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    prepare()
    # Nobody waits for those who wait for a command.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    orders = socket.socket(fileno=descriptor)
    while True:
        size, files, _, _ = socket.recv_fds(orders, _SIZE_BYTES, _MOST_FILES)
        if not size:
            return
        order = json.loads(orders.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    orders.close()
    report, stdout, stderr, *_ = files
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if process:
        _report(process, report)
    os.close(report)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    _become(order, stdout, stderr)


def _report(process: int, report: int) -> None:
    """Report the process id and the exit code of a child, then end."""
    with suppress(BrokenPipeError):
        os.write(report, f"{process}\n".encode())
    _, status = os.waitpid(process, 0)
    with suppress(BrokenPipeError):
        os.write(report, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(order: Mapping[str, Any], stdout: int, stderr: int) -> None:
    """Turn this process into ``python -m flowexp``."""
    if order["start_new_session"]:
        os.setsid()
    streams = (os.open(os.devnull, os.O_RDONLY), stdout, stderr)
    for number, file in enumerate(streams):
        os.dup2(file, number)
    for file in {*streams}:
        os.close(file)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.argv = ["flowexp", *order["arguments"]]
    runpy.run_module("flowexp", run_name="__main__", alter_sys=True)
