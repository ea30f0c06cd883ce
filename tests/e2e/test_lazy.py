"""Help, listings and mistakes are answered without importing what trains."""

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


@pytest.mark.parametrize("name", COMMANDS)
def test_imports_nothing_heavy(name, tmp_path):
    code = (
        "import sys\nfrom flowexp.cli import main\n"
        f"code = main({COMMANDS[name]!r})\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "print('HEAVY', heavy, code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("HEAVY [] "), (last, done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_imports_no_torch():
    code = "import sys, flowexp; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
