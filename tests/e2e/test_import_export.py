"""From a published checkpoint to samples, and on to a file that needs nothing else."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from flowexp.config.exported import load_exported
from tests.e2e.command import flowexp

pytestmark = pytest.mark.e2e

GOLDEN = Path(__file__).parents[1] / "goldens" / "data" / "edm" / "ckpt_edm_persistence.pkl"


def test_import_sample_export_load(tmp_path):
    done = flowexp("import", GOLDEN, "name=tiny", cwd=tmp_path)
    assert done.code == 0, done.err
    run = tmp_path / "outputs" / "imported" / "tiny"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["network"]["model_channels"] == 8
    assert "file" not in config
    manifest = json.loads((run / "manifest.json").read_text())
    [origin] = manifest["parents"]
    assert origin["role"] == "published checkpoint"
    assert len(origin["sha256"]) == 64
    assert manifest["choices"]["path"] == "edm"

    sampled = flowexp(
        "sample", f"run={run}", "seeds=0-3", "sampler.steps=4", "dirs.run=samples", cwd=tmp_path
    )
    assert sampled.code == 0, sampled.err
    samples = np.load(tmp_path / "samples" / "samples.npz")
    assert samples["x"].shape == (4, 3, 8, 8)
    assert np.isfinite(samples["x"]).all()
    assert (samples["nfe"] == 7).all()

    exported = flowexp("export", f"run={run}", "weights=main", "dirs.run=export", cwd=tmp_path)
    assert exported.code == 0, exported.err
    model = load_exported(tmp_path / "export" / "main.safetensors")
    data = np.load(GOLDEN.with_name(f"{GOLDEN.stem}_expected.npz"))
    with torch.inference_mode():
        denoised = model.denoise(torch.from_numpy(data["x"]), torch.from_numpy(data["sigma"]))
    torch.testing.assert_close(denoised, torch.from_numpy(data["D"]), rtol=2e-4, atol=2e-4)


def test_a_hostile_file_leaves_nothing_behind(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'was_run'}",)

    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"ema": Attack()}))
    done = flowexp("import", "x.pkl", cwd=tmp_path)
    assert done.code == 2
    assert "posix.system" in done.err
    assert "Traceback" not in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["x.pkl"]
