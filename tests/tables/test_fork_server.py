"""Commands as forks: what they print, how they end, and what their server survives."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from flowexp import __version__
from tests.e2e.command import TINY, shared_server

pytestmark = pytest.mark.e2e


@pytest.fixture
def server():
    return shared_server()


@pytest.fixture
def start(server, tmp_path):
    """Starts a command whose output is appended to ``said``."""
    with (tmp_path / "said").open("ab") as said:
        yield lambda *arguments: server.start(
            arguments, cwd=tmp_path, env=dict(os.environ), stdout=said.fileno(),
            stderr=said.fileno(), start_new_session=True,
        )  # fmt: skip


def test_commands_say_what_the_installed_one_says_and_end_alike(start, tmp_path):
    alike = [("--version",), ("trian",), ("train", "network=vgg")]
    for command in [start(*arguments) for arguments in alike]:
        assert command.wait() in (0, 2)
        assert command.poll() == command.wait()
    said = (tmp_path / "said").read_text()
    assert f"flowexp {__version__}" in said
    for arguments in alike:
        done = subprocess.run(
            [sys.executable, "-m", "flowexp", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert start(*arguments).wait() == done.returncode
        assert done.stdout + done.stderr in said


def test_signals_reach_a_command_and_not_the_server(server, start, tmp_path):
    # Until its first command the server may still be starting, and a signal ends it.
    start("--version").wait()
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 1)):
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(server._process.pid, ignored)
        run = tmp_path / f"run{number}"
        command = start("train", *TINY, "trainer.max_kimg=64", f"dirs.run={run}")
        metrics = run / "metrics.jsonl"
        # A first row says that the training also listens to signals.
        while not metrics.exists() or not metrics.stat().st_size:
            assert command.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.05)
        with pytest.raises(TimeoutError, match="still running after 0 s"):
            command.wait(timeout=0)
        if number == signal.SIGTERM:
            command.terminate()
        else:
            os.kill(command.pid, number)
        assert command.wait() == code
    assert "stopped by SIGTERM" in (tmp_path / "said").read_text()


def test_commands_outlive_the_server_which_ends_with_its_owner(tmp_path):
    code = """
        import os, sys
        from pathlib import Path
        from flowexp.tables.fork_server import ForkServer
        command = ForkServer().start(sys.argv[1:], cwd=Path(), env=os.environ, stdout=1, stderr=2)
        os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), "train", *TINY, "dirs.run=run"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    # The pipes stay open as long as the command or the server lives.
    assert "run directory" in done.stdout
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_what_the_server_imports_starts_no_accelerator_and_no_thread():
    """A fork of a process that has asked CUDA for its devices cannot use them."""
    code = """
        import threading
        import torch

        def forbidden(*_):
            raise AssertionError("the driver was asked")

        for name in ("_cuda_getDeviceCount", "_cuda_init"):
            setattr(torch._C, name, forbidden)
        torch.cuda.is_available = torch.cuda.device_count = torch.cuda.init = forbidden
        from flowexp.tables.fork_server import prepare
        prepare()
        assert threading.active_count() == 1, threading.enumerate()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
