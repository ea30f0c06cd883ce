"""From a trained DiT to images with given edges, on the command line."""

import json

import numpy as np
import pytest
import torch

from tests.e2e.command import TINY, flowexp

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
SIZES = ("hidden_size=16", "depth=2", "num_heads=2")
COMMON = tuple(one for one in TINY if not one.startswith("network."))


def done(*arguments, cwd):
    outcome = flowexp(*arguments, cwd=cwd, env=ONE_THREAD)
    assert outcome.code == 0, outcome.err
    return outcome.out


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("easycontrol")
    done("train", *COMMON, "network=dit", *(f"network.{size}" for size in SIZES),
         "parameterization=velocity", "objective=flow_matching", "timestep=uniform",
         "dirs.run=dit", cwd=folder)  # fmt: skip
    return folder


def samples(folder, *overrides):
    done("sample", *overrides, "seeds=0-7", "dirs.run=out", cwd=folder)
    found = np.load(folder / "out" / "samples.npz")["x"]
    (folder / "out" / "samples.npz").unlink()
    return found


def test_a_branch_is_trained_resumed_scored_exported_and_switched_off(base):
    adapt = [*COMMON, "network=easycontrol", *(f"network.network.{size}" for size in SIZES),
             "network.rank=2", "network.resolution=4", "task=edges",
             "parameterization=velocity", "objective=flow_matching",
             "timestep=uniform"]  # fmt: skip
    refused = flowexp("train", *adapt, "task=generation", cwd=base, env=ONE_THREAD)
    assert refused.code == 2
    assert "EasyControl needs conditions, but the task gives none" in refused.err

    done("train", *adapt, "init=dit", "dirs.run=adapted", cwd=base)
    before = torch.load(base / "dit" / "checkpoints" / "last.ckpt", weights_only=True)
    after = torch.load(base / "adapted" / "checkpoints" / "last.ckpt", weights_only=True)
    for name, tensor in before["network"].items():
        assert torch.equal(after["network"][f"network.{name}"], tensor), name
    assert any(t.any() for n, t in after["network"].items() if n.endswith(".b"))

    told = done("eval", "run=adapted", "num_samples=16", "metric=psnr", cwd=base)
    assert "PSNR" in told
    given = samples(base, "run=adapted")
    plain = samples(base, "run=dit", "weights=raw")
    off = samples(base, "run=adapted", "task=generation", "weights=raw")
    assert np.array_equal(off, plain)
    assert not np.array_equal(given, off)

    done("train", "run=adapted", "trainer.max_kimg=0.384", cwd=base)
    done("train", *adapt, "init=dit", "trainer.max_kimg=0.384", "dirs.run=through", cwd=base)
    resumed, through = (
        torch.load(base / run / "checkpoints" / "last.ckpt", weights_only=True)["network"]
        for run in ("adapted", "through")
    )
    assert resumed.keys() == through.keys()
    assert all(torch.equal(resumed[name], through[name]) for name in through)
    manifest = json.loads((base / "adapted" / "manifest.json").read_text())
    assert manifest["parents"]["init"]["run"] == "dit"

    done("export", "run=adapted", "dirs.run=model", cwd=base)
