"""An autoencoder, a flow on its latents, and what becomes of both, as a user types it."""

import json
import shutil

import pytest
import torch
import yaml

from tests.e2e.command import TINY, flowexp
from tests.e2e.test_resume import equal

pytestmark = pytest.mark.e2e

AUTOENCODER = (
    "train",
    "experiment=fashion10k/autoencoder",
    "dataset=digits",
    "network.block_out_channels=[4,8]",
    "network.norm_num_groups=2",
    "network.latent_channels=2",
    "trainer.max_kimg=0.256",
    "trainer.batch_size=32",
    "trainer.log_every=1",
)
FLOW = (
    "train",
    "experiment=fashion10k/latent_flow",
    *TINY,
    "lr_schedule=constant",
    "autoencoder=ae",
    "network.dropout=0.1",
    "trainer.checkpoint_kimg=0.064",
)
RAW = "metric=fd_raw"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an autoencoder and a flow on its latents; only to be copied from."""
    made = tmp_path_factory.mktemp("latents")
    for command in ((*AUTOENCODER, "dirs.run=ae"), (*FLOW, "dirs.run=flow")):
        outcome = flowexp(*command, cwd=made)
        assert outcome.code == 0, outcome.err
    return made


@pytest.fixture
def copied(folder, tmp_path_factory):
    return shutil.copytree(folder, tmp_path_factory.mktemp("copied") / "latents")


def results(run):
    return json.loads((run / "results.json").read_text())["evaluations"][-1]["records"]


def test_the_autoencoder_is_scored_on_what_it_reconstructs(copied):
    outcome = flowexp("eval", "run=ae", "metric=[psnr,fd_raw]", "num_samples=64", cwd=copied)
    assert outcome.code == 0, outcome.err
    assert "PSNR" in outcome.out
    assert "1 network evaluation a sample" in outcome.out


def test_a_flow_on_latents_is_scored_on_images_beside_two_floors(copied):
    config = yaml.safe_load((copied / "flow" / "config.yaml").read_text())
    assert config["autoencoder"]["channels"] == config["network"]["in_channels"] == 2
    assert config["autoencoder"]["resolution"] == config["network"]["img_resolution"] == 4
    outcome = flowexp("eval", "run=flow", RAW, "num_samples=96", cwd=copied)
    assert outcome.code == 0, outcome.err
    assert "floor: held-out against train" in outcome.out
    assert "floor: decoded latents of real images" in outcome.out
    assert "decoder" in outcome.out
    (record,) = results(copied / "flow")
    assert record["extra"]["reconstruction"] > 0.0
    assert record["extra"]["reconstruction_count"] == 96
    assert record["protocol"]["autoencoder"].startswith("autoencoder ")


@pytest.mark.parametrize("task", ["task=inpainting", "task=semantic_map"])
def test_a_task_of_images_conditions_a_flow_on_latents(task, copied):
    """The network sees latents of the given image and maps of their size; grids show images."""
    flow = [o for o in FLOW if o != "trainer.checkpoint_kimg=0.064"]
    outcome = flowexp(*flow, task, "dirs.run=given", cwd=copied)
    assert outcome.code == 0, outcome.err
    command = ("eval", "run=given", "metric=[psnr,fd_raw]", "num_samples=32", "sampler.steps=2")
    outcome = flowexp(*command, cwd=copied)
    assert outcome.code == 0, outcome.err
    psnr, _ = results(copied / "given")
    assert psnr["value"] > 0.0
    from PIL import Image

    (grid,) = (copied / "given" / "eval").rglob("grid.png")
    with Image.open(grid) as image:
        assert image.size[0] > 3 * 8


def test_tokens_of_latents_are_drawn_one_after_the_other(copied):
    """As published, MAR's tokens are those of an autoencoder, with a draft or without."""
    small = ("network.hidden_size=8", "network.depth=1", "network.head_width=8",
             "network.head_depth=1", "network.num_heads=2", "network.patch_size=1")  # fmt: skip
    tiny = [o for o in TINY if not o.startswith("network.")]
    mar = ("train", "experiment=fashion10k/mar", *tiny, *small, "autoencoder=ae", "dirs.run=mar")
    outcome = flowexp(*mar, cwd=copied)
    assert outcome.code == 0, outcome.err
    for sampler in ("mar", "speculative"):
        draft = ["sampler.draft=mar"] if sampler == "speculative" else []
        command = ("eval", "run=mar", f"sampler={sampler}", *draft, RAW, "num_samples=8")
        outcome = flowexp(*command, cwd=copied)
        assert outcome.code == 0, outcome.err
        assert "floor: decoded latents of real images" in outcome.out
    manifest = json.loads((copied / "mar" / "manifest.json").read_text())
    manifest["autoencoder"]["identity"] = "another"
    shutil.copytree(copied / "mar", copied / "draft")
    (copied / "draft" / "manifest.json").write_text(json.dumps(manifest))
    training = [override for override in mar[1:-1] if not override.startswith("sampler.")]
    for command in (("sample", "run=mar"), ("check", *training)):
        outcome = flowexp(*command, "sampler=speculative", "sampler.draft=draft", cwd=copied)
        assert outcome.code == 2, outcome.out
        assert "sampler.draft: draft was trained on latents of another" in outcome.err


def test_guidance_and_samples(copied):
    outcome = flowexp(
        *("sample", "run=flow", "guidance=cfg", "guidance.scale=1.5", "seeds=0-3", "png=true"),
        cwd=copied,
    )
    assert outcome.code == 0, outcome.err
    (picture, *others) = sorted(copied.rglob("00000?.png"))
    assert len(others) == 3
    from PIL import Image

    with Image.open(picture) as image:
        assert image.size == (8, 8)


def last(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def test_a_run_on_latents_is_resumed_bit_by_bit(copied):
    half = flowexp(*FLOW, "trainer.max_kimg=0.128", "dirs.run=parts", cwd=copied)
    assert half.code == 0, half.err
    rest = flowexp("train", "run=parts", "trainer.max_kimg=0.256", cwd=copied)
    assert rest.code == 0, rest.err
    assert "already finished" not in rest.out
    whole, parts = last(copied / "flow"), last(copied / "parts")
    for key in ("step", "network", "ema"):
        assert equal(whole[key], parts[key]), key


def test_latents_of_other_weights_are_refused(copied):
    longer = flowexp("train", "run=ae", "trainer.max_kimg=0.512", "lr_schedule.end_kimg=0.512",
                     cwd=copied)  # fmt: skip
    assert longer.code == 0, longer.err
    for command in (
        ("train", "run=flow", "trainer.max_kimg=0.512"),
        ("eval", "run=flow", RAW, "num_samples=64"),
        ("sample", "run=flow"),
    ):
        outcome = flowexp(*command, cwd=copied)
        assert outcome.code == 2, outcome.out
        assert "another autoencoder" in outcome.err


def test_pairs_of_latents_train_a_student(copied):
    made = flowexp("pairs", "run=flow", "num=64", cwd=copied)
    assert made.code == 0, made.err
    student = flowexp(
        *("train", "from=flow", "coupling=pairs", "pairs=flow/pairs", "dirs.run=student"),
        cwd=copied,
    )
    assert student.code == 0, student.err
    outcome = flowexp("eval", "run=student", RAW, "num_samples=64", cwd=copied)
    assert outcome.code == 0, outcome.err
    folder = copied / "flow" / "pairs"
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["teacher"]["autoencoder"] = "another"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused = flowexp("check", "from=flow", "coupling=pairs", "pairs=flow/pairs", cwd=copied)
    assert refused.code == 2, refused.out
    assert "trained on latents of another, but this training is on latents of" in refused.err


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["autoencoder=no/such/folder"], "there is no folder no/such/folder"),
        (["autoencoder=flow"], "which is no autoencoder"),
        (["autoencoder=ae", "autoencoder/scaling=edm2"], "4 channels"),
        (["autoencoder=ae", "objective=lpips"], "on latents"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(copied, overrides, said):
    outcome = flowexp("check", "dataset=digits", *overrides, cwd=copied)
    assert outcome.code == 2, outcome.out
    assert said in outcome.err
    assert "Traceback" not in outcome.err


def test_a_run_from_before_there_were_autoencoders(trained_run):
    here = trained_run.parent
    file = trained_run / "config.yaml"
    content = yaml.safe_load(file.read_text())
    assert content.pop("autoencoder")["_target_"] == "flowexp.autoencoders.base.Pixels"
    file.write_text(yaml.safe_dump(content))
    manifest = json.loads((trained_run / "manifest.json").read_text())
    del manifest["choices"]["autoencoder"]
    (trained_run / "manifest.json").write_text(json.dumps(manifest))
    for command in (
        ("eval", "run=run", RAW, "num_samples=64"),
        ("sample", "run=run", "seeds=0-3"),
        ("export", "run=run"),
        ("train", "run=run", "trainer.max_kimg=0.32"),
        ("train", "from=run", "trainer.max_kimg=0.032", "network=dit", "init=null",
         "network.hidden_size=16", "network.depth=1", "network.num_heads=2", "dirs.run=other"),
    ):  # fmt: skip
        outcome = flowexp(*command, cwd=here)
        assert outcome.code == 0, outcome.err
    other = yaml.safe_load((here / "other" / "config.yaml").read_text())
    assert other["network"]["in_channels"] == 1
    choices = json.loads((here / "other" / "manifest.json").read_text())["choices"]
    assert choices["autoencoder"] == "none"
