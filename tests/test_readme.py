"""What the README shows works as shown."""

import re
import shlex
from pathlib import Path

import pytest

from flowexp.apps.list import options
from flowexp.cli import VERBS
from flowexp.config.check import check

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def commands() -> list[str]:
    found = []
    for line in README.splitlines():
        if line.startswith("    flowexp "):
            found += [part.strip() for part in line.split("#")[0].split(";")]
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_is_sound(command):
    verb, *arguments = shlex.split(command)[1:]
    assert verb in VERBS
    if verb not in ("train", "check") or "--config-dir" in arguments:
        return
    overrides = [a for a in arguments if a != "-m"]
    found = check("train", overrides, multirun="-m" in arguments)
    assert [str(p) for p in found.problems] == []


def test_the_overrides_of_the_table_are_sound():
    tables = [line.split("|") for line in README.splitlines() if line.startswith("| ")]
    checked = 0
    for cells in tables:
        for text in re.findall(r"`([^`]*=[^`]*)`", cells[2]):
            overrides = text.split()
            # What begins with another verb starts from a run, which is not there.
            if overrides[0] in VERBS or "=" not in overrides[0]:
                continue
            assert [str(p) for p in check("train", overrides).problems] == [], cells
            checked += 1
    assert checked >= 10


def test_the_library_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["x"].shape == (4, 1, 28, 28)


def test_named_experiments_exist():
    known = set(options("experiment"))
    named = re.findall(r"experiment=([a-z0-9_]+/[a-z0-9_]+)", README)
    named += re.findall(r"`(cifar10/[a-z_]+)`", README)
    assert named
    assert set(named) <= known
