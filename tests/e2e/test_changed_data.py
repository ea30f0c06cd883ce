"""A folder of images whose labels have a gap, and that changes after training."""

import json

import numpy as np
import pytest
from PIL import Image

import flowexp as library
from flowexp.config.check import check
from flowexp.data.digits import Digits
from flowexp.runs.opening import open_run
from tests.e2e.command import TINY, flowexp

pytestmark = pytest.mark.e2e


def test_a_run_knows_its_images_and_their_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own").mkdir()
    for number, image in enumerate(Digits().train().images[:12]):
        Image.fromarray(image[0]).save(tmp_path / f"own/{number:02d}.png")
    (tmp_path / "own/notes.txt").write_text("no image")
    table = [[f"{number:02d}.png", number % 2 * 2] for number in range(12)]
    (tmp_path / "own/dataset.json").write_text(json.dumps({"labels": table}))
    command = [
        "train", *(given for given in TINY if given != "dataset=digits"), "dataset=image_folder",
        "dataset.archive=own", "dataset.resolution=8", "dataset.channels=1",
        "dataset.use_labels=true", "dataset.num_classes=3", "dirs.run=run",
    ]  # fmt: skip
    first = flowexp(*command, cwd=tmp_path)
    assert first.code == 0, first.err
    assert first.err.count("1 .txt (notes.txt)") == 1
    assert "class 1 has no image: samples are drawn of the others" in first.err
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["dataset_size"] == 12
    assert manifest["classes_without_images"] == [1]
    assert "notes.txt" in manifest["dataset_reading"]["left_out"]

    monkeypatch.chdir(tmp_path)
    pipeline = library.load("run", device="cpu")
    (batch,) = pipeline.batches(range(30))
    assert set(batch.conditions["labels"].tolist()) == {0, 2}

    config = check("eval", ["run=run"]).sound()
    opened = open_run(config)
    assert opened.remark_on_data(opened.built.dataset.train(), config) is None
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "own/00.png")
    opened = open_run(config)
    changed = opened.built.dataset.train()
    remark = opened.remark_on_data(changed, config)
    for words in (manifest["dataset_fingerprint"], changed.fingerprint, "12 images"):
        assert words in remark
    other = {**config, "dataset": {**config["dataset"], "archive": "elsewhere"}}
    assert opened.remark_on_data(changed, other) is None

    again = flowexp(*command, "trainer.max_kimg=0.512", cwd=tmp_path)
    assert again.code == 2
    for words in (manifest["dataset_fingerprint"], changed.fingerprint, "dirs.run"):
        assert words in again.err
    assert json.loads((tmp_path / "run/manifest.json").read_text()) == manifest
