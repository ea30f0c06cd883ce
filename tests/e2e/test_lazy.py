"""Help, listings and mistakes are answered without importing what trains."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e

HEAVY = (
    "torch",
    "pytorch_lightning",
    "torchmetrics",
    "torchvision",
    "wandb",
    "timm",
    "scipy",
    "sklearn",
    "matplotlib",
    "pandas",
)

COMMANDS = {
    "usage": [],
    "help": ["train", "--help"],
    "eval help": ["eval", "--help"],
    "cfg job": ["train", "--cfg", "job"],
    "cfg job of an experiment": ["train", "experiment=cifar10/edm", "--cfg", "job", "--resolve"],
    "info": ["train", "--info", "defaults"],
    "list": ["list"],
    "list of a group": ["list", "sampler"],
    "list of experiments": ["list", "experiment"],
    "misspelt option": ["train", "path=liner"],
    "misspelt key": ["train", "trainer.max_king=3"],
    "wrong type": ["train", "trainer.max_kimg=many"],
    "out of range": ["train", "path.D=-1"],
    "impossible combination": ["train", "path=edm", "timestep=logit_normal"],
    "no run": ["eval"],
}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """What each command imported of ``HEAVY``, one after another in one new interpreter."""
    folder = tmp_path_factory.mktemp("lazy")
    code = (
        "import contextlib, io, json, sys\n"
        "from flowexp.cli import main\n"
        "found, before = {}, set()\n"
        f"for name, command in {COMMANDS!r}.items():\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        main(command)\n"
        f"    heavy = set({HEAVY!r}) & set(sys.modules)\n"
        "    found[name], before = sorted(heavy - before), heavy\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_imports_nothing_heavy(name, imported):
    assert imported[name] == []


def test_importing_the_package_imports_no_torch():
    code = "import sys, flowexp; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
