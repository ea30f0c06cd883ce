"""A task that conditions on images, by the commands of a user."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.e2e.command import TINY, flowexp

pytestmark = pytest.mark.e2e

DROPPED = ("task.inputs.image.dropout=0.2", "task.inputs.mask.dropout=0.2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run of inpainting, and one of generation."""
    made = tmp_path_factory.mktemp("conditions")
    for name, task in (("given", ("task=inpainting", *DROPPED)), ("free", ())):
        done = flowexp("train", *TINY, *task, "metric=none", f"dirs.run={name}", cwd=made)
        assert done.code == 0, done.err
    return made


def sizes(file):
    with Image.open(file) as image:
        return image.size


def test_a_run_is_scored_with_its_own_task_and_shows_what_was_given(folder):
    done = flowexp("eval", "run=given", "metric=[psnr]", "num_samples=16", cwd=folder)
    assert done.code == 0, done.err
    [evaluation] = json.loads((folder / "given/results.json").read_text())["evaluations"]
    [record] = evaluation["records"]
    assert 0.0 < record["value"] < 40.0
    [grid] = (folder / "given/eval").rglob("grid.png")
    assert sizes(grid)[0] > sizes(grid)[1]  # groups of three side by side
    assert [*(folder / "given/samples").glob("*.png")]


def test_guidance_and_another_mask_when_sampling(folder):
    chosen = ["guidance=cfg", "guidance.without=[image,mask]", "task/mask=half", "task.paste=true"]
    done = flowexp("sample", "run=given", *chosen, "seeds=0-3", "dirs.run=out", cwd=folder)
    assert done.code == 0, done.err
    with np.load(folder / "out/samples.npz") as arrays:
        assert arrays["nfe"].tolist() == [2 * 5] * 4  # Heun with three steps


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("eval", "run=given", "task=semantic_map"), "gives map, which the network does not take"),
        (("eval", "run=free", "task=inpainting"), "gives image and mask, which the network does"),
        (("train", "from=free", "task=inpainting"), "gives image and mask, which the network does"),
        (("pairs", "run=given", "num=4"), "pairs leave out the image and mask that Inpainting"),
        (("stream", "run=given"), "streams leave out the image and mask"),
        (("calibrate", "run=given", "calibration=chords"), "chords leave out the image and mask"),
        (("eval", "run=given", "metric=bits_per_dim"), "conditions the model on image, mask"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(folder, command, named):
    done = flowexp(*command, cwd=folder)
    assert done.code == 2
    assert named in done.err
    assert "Traceback" not in done.err


def test_conditions_that_were_dropped_may_be_missing(folder):
    done = flowexp(
        "sample", "run=given", "task=generation", "seeds=0-3", "dirs.run=without", cwd=folder
    )
    assert done.code == 0, done.err


def test_an_exported_file_says_that_the_task_is_missing(tmp_path):
    always = ("task=paired_image", "dataset=digits_blurred", "dirs.run=run", "metric=none")
    assert flowexp("train", *TINY, *always, cwd=tmp_path).code == 0
    done = flowexp("export", "run=run", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "always had image, which Generation does not give. Give the pipeline a task" in done.err


def test_a_run_goes_on_with_other_shares_of_dropped_conditions(folder):
    chosen = ("task.inputs.image.dropout=0.5", "trainer.max_kimg=0.064", "dirs.run=more")
    done = flowexp("train", "from=given", *chosen, cwd=folder)
    assert done.code == 0, done.err
    config = yaml.safe_load((folder / "more/config.yaml").read_text())
    assert config["network"]["conditions"] == config["task"]["inputs"]
    assert config["network"]["conditions"]["image"]["dropout"] == 0.5
