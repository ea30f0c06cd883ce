"""Wrong command lines: exit code 2, one readable paragraph, nothing left behind, at once."""

import resource
import zipfile

import pytest

from tests.e2e.command import TINY, flowexp

pytestmark = pytest.mark.e2e

# command line, words the message must hold (key and remedy)
WITHOUT_DATA = {
    "unknown verb": (["trian"], ["trian", "train"]),
    "misspelt group": (["train", "pth=linear"], ["pth", "path"]),
    "misspelt option": (["train", "path=liner"], ["path", "linear"]),
    "misspelt experiment": (
        ["train", "experiment=fashion10k/rectifed_flow"],
        ["experiment", "fashion10k/rectified_flow"],
    ),
    "misspelt key": (["train", "trainer.max_king=3"], ["trainer.max_king", "trainer.max_kimg"]),
    "key without its group": (["train", "max_kimg=3"], ["max_kimg", "trainer.max_kimg"]),
    "misspelt nested group": (
        ["train", "sampler/time_gird=edm"],
        ["sampler/time_gird", "sampler/time_grid"],
    ),
    "text for a number": (
        ["train", "trainer.max_kimg=many"],
        ["trainer.max_kimg", "many", "float"],
    ),
    "fraction for an integer": (["train", "trainer.batch_size=1.5"], ["trainer.batch_size", "int"]),
    "number for a list": (["train", "network.channel_mult=3"], ["network.channel_mult"]),
    "text for the seed": (["train", "seed=one"], ["seed", "one"]),
    "negative D": (["train", "path=pfgmpp", "path.D=-1"], ["path.D", "positive"]),
    "no steps": (["train", "sampler.steps=0"], ["sampler.steps", "at least 1"]),
    "missing value": (["train", "dataset=image_folder"], ["dataset.archive", "dataset.archive="]),
    "no equals sign": (["train", "path"], ["path", "path=VALUE"]),
    "unreadable value": (["train", "path=[linear"], ["path"]),
    "several values without -m": (["train", "path=linear,vp"], ["path", "-m"]),
    "churn on a t source": (
        ["train", "path=pfgmpp", "sampler=edm_heun", "sampler.S_churn=40"],
        ["sampler.S_churn", "path.D"],
    ),
    "unit-time law on a VE path": (
        ["train", "path=edm", "timestep=logit_normal"],
        ["timestep", "VE", "timestep=lognormal"],
    ),
    "guidance without labels": (
        ["train", "network.label_dim=0", "guidance=cfg", "guidance.scale=2"],
        ["guidance", "label"],
    ),
    "wrong number of classes": (["train", "network.label_dim=7"], ["network.label_dim", "10"]),
    "image network on points": (["train", "dataset=toy2d"], ["network", "dataset"]),
    "unknown target": (["train", "path._target_=flowexp.paths.Pth"], ["path._target_", "Path"]),
    "argument nobody takes": (["train", "+path.nonsense=1"], ["path.nonsense", "Path"]),
    "eval without a run": (["eval"], ["run", "run=DIR"]),
    "sample from nowhere": (["sample", "run=nowhere"], ["run", "nowhere"]),
    "a sweep with one bad job": (["train", "path=linear,vq", "-m"], ["path", "vp"]),
    "check of a bad value": (["check", "optimizer.lr=-1"], ["optimizer.lr", "positive"]),
    "list of an unknown group": (["list", "samplr"], ["samplr", "sampler"]),
    "the config of a sweep": (["train", "seed=1,2", "-m", "--cfg", "job"], ["--cfg", "-m"]),
    "missing folder of groups": (["train", "--config-dir", "nowhere"], ["--config-dir", "nowhere"]),
}

# a new interpreter each; what they import and read is all that others do
TIMED = {
    "unknown verb",
    "misspelt option",
    "fraction for an integer",
    "unit-time law on a VE path",
    "eval without a run",
}


def one_readable_paragraph(outcome):
    assert outcome.code == 2, (outcome.out, outcome.err)
    assert "Traceback" not in outcome.err
    assert outcome.err.startswith("flowexp: ")
    assert 1 <= len(outcome.err.strip().splitlines()) <= 3
    assert len(outcome.err) < 1200


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_mistakes_that_need_no_data(name, tmp_path):
    arguments, words = WITHOUT_DATA[name]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    outcome = flowexp(*arguments, cwd=tmp_path, fresh=name in TIMED)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    one_readable_paragraph(outcome)
    for word in words:
        assert word in outcome.err
    assert list(tmp_path.iterdir()) == []
    # the server's children are not counted
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0


def test_missing_data(tmp_path):
    outcome = flowexp("train", "dataset=cifar10", cwd=tmp_path, env={"FLOWEXP_DATA": str(tmp_path)})
    one_readable_paragraph(outcome)
    assert "dataset.root" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_missing_weights(trained_run, tmp_path):
    before = sorted(trained_run.rglob("*"))
    outcome = flowexp("eval", f"run={trained_run}", "metric=fid", "num_samples=8", cwd=tmp_path)
    one_readable_paragraph(outcome)
    assert "weights" in outcome.err
    assert "metric=fd_efflite0" in outcome.err
    assert sorted(trained_run.rglob("*")) == before


def test_unreadable_archive(tmp_path):
    archive = tmp_path / "broken.zip"
    archive.write_bytes(b"PK\x03\x04 this is no archive")
    found = flowexp(
        "train",
        "dataset=image_folder",
        f"dataset.archive={archive}",
        "dataset.resolution=8",
        cwd=tmp_path,
    )
    one_readable_paragraph(found)
    assert "dataset.archive" in found.err
    assert [p.name for p in tmp_path.iterdir()] == ["broken.zip"]


def test_archive_of_another_size(tmp_path):
    from PIL import Image

    archive = tmp_path / "small.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for i in range(4):
            picture = tmp_path / "x.png"
            Image.new("RGB", (16, 16), (i, 0, 0)).save(picture)
            zipped.write(picture, f"00000/img{i:08d}.png")
            picture.unlink()
    outcome = flowexp(
        "train",
        "dataset=image_folder",
        f"dataset.archive={archive}",
        "dataset.resolution=32",
        cwd=tmp_path,
    )
    one_readable_paragraph(outcome)
    assert "16" in outcome.err
    assert "32" in outcome.err
    assert not (tmp_path / "outputs").exists()


def test_unwritable_output(tmp_path):
    (tmp_path / "file").write_text("in the way")
    outcome = flowexp("train", *TINY, "dirs.run=file/run", cwd=tmp_path)
    one_readable_paragraph(outcome)
    assert "dirs.run" in outcome.err
    assert [p.name for p in tmp_path.iterdir() if p.name != ".cache"] == ["file"]


def test_another_config_in_the_same_directory(trained_run, tmp_path):
    outcome = flowexp("train", *TINY, "optimizer.lr=0.5", f"dirs.run={trained_run}", cwd=tmp_path)
    one_readable_paragraph(outcome)
    assert "optimizer.lr" in outcome.err
    assert (trained_run / "checkpoints" / "last.ckpt").is_file()


def test_unknown_average(trained_run, tmp_path):
    outcome = flowexp("sample", f"run={trained_run}", "weights=nope", "seeds=0-1", cwd=tmp_path)
    one_readable_paragraph(outcome)
    assert "nope" in outcome.err
    assert "main" in outcome.err


def test_nonsense_seeds(trained_run, tmp_path):
    outcome = flowexp("sample", f"run={trained_run}", "seeds=a-b", cwd=tmp_path)
    one_readable_paragraph(outcome)
    assert "seeds" in outcome.err


def test_truncated_checkpoint(trained_run, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(trained_run, copy)
    for file in (copy / "checkpoints").iterdir():
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    outcome = flowexp("sample", f"run={copy}", "seeds=0-1", cwd=tmp_path)
    one_readable_paragraph(outcome)
    assert "checkpoint" in outcome.err


def test_debug_shows_the_traceback(tmp_path):
    outcome = flowexp("train", "path=liner", "--debug", cwd=tmp_path)
    assert outcome.code == 1
    assert "Traceback" in outcome.err
