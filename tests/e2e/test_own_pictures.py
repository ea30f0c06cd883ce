"""A user's own pictures: prepared, trained on, scored; the run opens without them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from flowexp.cli import main
from flowexp.runs import library
from tests.e2e.command import TINY, flowexp

pytestmark = pytest.mark.e2e

OTHERS = [given for given in TINY if given != "dataset=digits"]


def test_from_a_folder_of_photographs_to_a_score(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(30):
        size = (20 + number, 30, 3)
        pixels = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
        folder = tmp_path / "photographs" / ("rose", "tulip", "wild daisy")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    refused = flowexp("train", "dataset=image_folder", "dataset.archive=photographs", cwd=tmp_path)
    assert refused.code == 2
    assert "flowexp prepare in=photographs out=photographs-64.zip" in refused.err
    assert main(["prepare", "photographs", "out=p.zip", "resolution=8"]) == 0
    assert "next      flowexp train dataset=image_folder dataset.archive=p.zip\n" in (
        capsys.readouterr().out
    )
    trained = flowexp(
        "train", *OTHERS, "dataset=image_folder", "dataset.archive=p.zip", "dirs.run=run",
        "metric=fd_raw", cwd=tmp_path,
    )  # fmt: skip
    assert trained.code == 0, trained.err
    scored = flowexp("eval", "run=run", cwd=tmp_path)
    assert scored.code == 0, scored.err
    said = " ".join(scored.out.split())
    assert "300 samples in" in said  # ten for every picture
    assert "There is no floor, because image_folder has no held-out images." in said
    assert "30 reference images" in said
    assert json.loads((tmp_path / "run/manifest.json").read_text())["dataset_size"] == 30

    (tmp_path / "p.zip").unlink()
    shutil.rmtree(tmp_path / "photographs")
    pipeline = library.load("run", device="cpu")
    assert pipeline.dataset.class_names == ("rose", "tulip", "wild daisy")
    assert pipeline.sample(range(2)).shape == (2, 3, 8, 8)
