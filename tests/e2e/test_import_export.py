"""From a published checkpoint to samples, and on to a file that needs nothing else."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from flowexp.runs.exported import load_exported
from tests.e2e.command import flowexp, shared_by_two

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
    model = load_exported(tmp_path / "export" / "main.safetensors", device="cpu").model
    data = np.load(GOLDEN.with_name(f"{GOLDEN.stem}_expected.npz"))
    with torch.inference_mode():
        denoised = model.denoise(torch.from_numpy(data["x"]), torch.from_numpy(data["sigma"]))
    torch.testing.assert_close(denoised, torch.from_numpy(data["D"]), rtol=2e-4, atol=2e-4)


def pictures(folder: Path, *, count: int = 24) -> Path:
    """A folder of small colour pictures for a checkpoint of that size to be scored against."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def records(run: Path) -> list[dict]:
    stored = json.loads((run / "results.json").read_text())["evaluations"]
    return [entry["records"] for entry in stored]


def test_two_evaluations_and_two_processes_say_the_same(tmp_path):
    """The record of the published seeds does not depend on how often or by how many it is made."""
    archive = pictures(tmp_path / "pictures")
    given = [
        "dataset=image_folder", f"dataset.archive={archive}", "dataset.resolution=8",
        "dataset.channels=3", "metric=fd_raw",
    ]  # fmt: skip
    done = flowexp("import", GOLDEN, "name=tiny", *given, cwd=tmp_path)
    assert done.code == 0, done.err
    run = tmp_path / "outputs" / "imported" / "tiny"
    asked = [f"run={run}", "num_samples=21", "batch_size=4", "sampler.steps=3", "latents=reference"]
    for _ in range(2):
        scored = flowexp("eval", *asked, cwd=tmp_path)
        assert scored.code == 0, scored.err
    shared = shared_by_two("eval", *asked, cwd=tmp_path)
    assert shared.code == 0, shared.err
    first, second, both = records(run)
    assert first == second
    assert both[0]["protocol"] == first[0]["protocol"]
    assert both[0]["protocol"]["n_gen"] == 21
    assert both[0]["value"] == pytest.approx(first[0]["value"], rel=1e-6)


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
