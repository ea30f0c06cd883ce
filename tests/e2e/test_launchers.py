"""One sweep through every launcher gives the same weights and the same failures."""

import importlib.util
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from flowexp.config.application import _refuse_subprocess_strategies
from flowexp.config.check import check
from flowexp.errors import UsageError
from tests.e2e.command import TINY, flowexp

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}
# One thread everywhere: the order of a sum depends on their number.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# The loss of the first job is not finite; the second must be done all the same.
SWEEP = [*TINY, "trainer.max_kimg=0.064", "optimizer.lr=1e30,1e-3", "-m"]


def installed(launcher):
    try:
        return importlib.util.find_spec(PLUGINS[launcher]) is not None
    except ModuleNotFoundError:
        return False


def sweep(folder, launcher):
    """The weights of the job that succeeds."""
    where = [f"launcher={launcher}", f"dirs.sweep={launcher}"]
    done = flowexp("train", *SWEEP, *where, cwd=folder, env=ONE_THREAD)
    assert done.code == 1, done.out + done.err
    assert "1 of 2 jobs failed:\n  job 0 (optimizer.lr=1e+30): NonFiniteLossError: " in done.err
    assert done.out.rstrip().endswith(f"flowexp compare {launcher}")
    failed, trained = (folder / launcher / n / "checkpoints/last.ckpt" for n in "01")
    assert not failed.exists()
    return torch.load(trained, weights_only=True)["network"]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return sweep(tmp_path_factory.mktemp("launchers"), "local")


@pytest.mark.parametrize("launcher", list(PLUGINS))
def test_a_sweep_is_the_same_on_every_launcher_and_a_failing_job_stops_no_other(
    launcher, local, tmp_path
):
    if not installed(launcher):
        pytest.skip(f"the plugin of launcher={launcher} is not installed")
    mine = sweep(tmp_path, launcher)
    assert all(torch.equal(mine[key], value) for key, value in local.items())


def test_a_launcher_that_is_not_installed_says_what_to_install():
    if installed("ray"):
        pytest.skip("Ray's launcher is installed")
    problems = check("train", ["launcher=ray"], multirun=True).problems
    assert [p.key for p in problems] == ["launcher"]
    assert "pip install 'flowexp[ray]'" in problems[0].remedy


def test_processes_of_a_sweep_are_slurms_or_refused(monkeypatch):
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    two = {"trainer": {"devices": 2, "strategy": "ddp"}}
    with pytest.raises(UsageError, match=r"launcher\.tasks=2"):
        _refuse_subprocess_strategies({**two, "launcher": {}})
    with pytest.raises(UsageError, match="rerun the whole sweep"):
        _refuse_subprocess_strategies({**two, "launcher": {"tasks": 1}})
    _refuse_subprocess_strategies({**two, "launcher": {"tasks": 2}})


def test_slurm_gets_what_the_launcher_group_says():
    asked = ["launcher=slurm", "launcher.gpus=8", "launcher.nodes=2", "--cfg", "all"]
    done = flowexp("train", *asked, cwd=Path())
    assert done.code == 0, done.err
    launcher = OmegaConf.create(done.out).hydra.launcher
    assert (launcher.gpus_per_node, launcher.nodes, launcher.max_num_timeout) == (8, 2, 4)
    assert launcher._target_.endswith("SlurmLauncher")
