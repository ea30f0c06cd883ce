"""One sweep through every launcher gives the same weights."""

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
SWEEP = [*TINY, "trainer.max_kimg=0.064", "seed=1,2", "-m"]


def installed(launcher):
    try:
        return importlib.util.find_spec(PLUGINS[launcher]) is not None
    except ModuleNotFoundError:
        return False


def weights(folder, number):
    file = folder / str(number) / "checkpoints/last.ckpt"
    return torch.load(file, weights_only=True)["network"]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launchers")
    done = flowexp("train", *SWEEP, "dirs.sweep=local", cwd=folder, env=ONE_THREAD)
    assert done.code == 0, done.err
    return folder / "local"


@pytest.mark.parametrize("launcher", list(PLUGINS))
def test_a_sweep_is_the_same_on_every_launcher(launcher, local):
    if not installed(launcher):
        pytest.skip(f"the plugin of launcher={launcher} is not installed")
    where = [f"launcher={launcher}", f"dirs.sweep={launcher}"]
    done = flowexp("train", *SWEEP, *where, cwd=local.parent, env=ONE_THREAD)
    assert done.code == 0, done.err
    for number in (0, 1):
        mine, theirs = weights(local.parent / launcher, number), weights(local, number)
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("launcher", ["local", "joblib", "submitit_local"])
def test_a_failing_job_does_not_stop_the_others(launcher, tmp_path):
    # The first job's loss is not finite; the second must be done all the same.
    failing = [*TINY, "trainer.max_kimg=0.064", "optimizer.lr=1e30,1e-3", "-m"]
    where = [f"launcher={launcher}", "dirs.sweep=out"]
    done = flowexp("train", *failing, *where, cwd=tmp_path, env=ONE_THREAD)
    assert done.code == 1, done.out + done.err
    assert not (tmp_path / "out/0/checkpoints/last.ckpt").exists()
    assert (tmp_path / "out/1/checkpoints/last.ckpt").exists()
    assert "NonFiniteLossError" in done.err


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
