"""From a teacher to a student of one step, and a pair job that is killed again and again."""

import json
import os
import random
import shutil
import signal

import numpy as np
import pytest
import torch

from tests.e2e.command import TINY, flowexp, shared_by_two, start, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SMALL = ("num=60", "shard_size=16", "batch_size=8")
REFLOW = (*TINY, "coupling=pairs", "objective=flow_matching", "dataset.hflip=true")


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def teacher(trained_once, tmp_path_factory):
    """A run of its own with a small pair store; tests must not change it."""
    folder = tmp_path_factory.mktemp("teacher")
    shutil.copytree(trained_once, folder / "run")
    done = flowexp("pairs", f"run={folder}/run", *SMALL, cwd=folder)
    assert done.code == 0, done.err
    assert "60 at 5 NFE" in done.out
    return folder / "run"


def test_five_kills_change_nothing(teacher, tmp_path):
    command = ("pairs", f"run={teacher}", "num=200", "shard_size=8", "batch_size=8",
               "sampler.steps=25")  # fmt: skip
    whole = flowexp(*command, "dirs.run=whole", cwd=tmp_path)
    assert whole.code == 0, whole.err
    killed, rng, kills = tmp_path / "killed", random.Random(3), 0
    for low in (0, 4, 8, 13, 18):
        shards, delay = low + rng.randrange(3), rng.random() * 0.1
        process = start(*command, "dirs.run=killed", cwd=tmp_path)
        wait_for(
            lambda s=shards, p=process: (
                (len(list(killed.glob("shard_*.npz"))) >= s and (killed / "manifest.json").exists())
                or p.poll() is not None
            )
        )
        try:
            process.wait(timeout=delay)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 5, "the job ended before it could be killed"
    assert not (killed / "digests.json").exists()
    finished = flowexp(*command, "dirs.run=killed", cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert content(killed) == content(tmp_path / "whole")
    seeds = np.concatenate([np.load(f)["seeds"] for f in sorted(killed.glob("shard_*.npz"))])
    assert seeds.tolist() == list(range(10_000_000, 10_000_200))


def test_two_processes_make_the_same_store(teacher, tmp_path):
    command = ("pairs", f"run={teacher}", *SMALL)
    two = shared_by_two(*command, "dirs.run=two", cwd=tmp_path)
    assert two.code == 0, two.err
    one = flowexp(*command, "dirs.run=one", cwd=tmp_path)
    assert one.code == 0, one.err
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_student_of_one_step(teacher, tmp_path):
    done = flowexp(
        "train", *REFLOW, f"pairs={teacher}/pairs", f"init={teacher}", "dirs.run=student",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    parents = json.loads((tmp_path / "student" / "manifest.json").read_text())["parents"]
    assert parents["pairs.0"]["count"] == 60
    assert parents["pairs.0"]["teacher"]["sha256"] == parents["init"]["sha256"]
    assert "was not compared" not in done.err
    sampled = flowexp(
        "sample", "run=student", "seeds=0-3", "sampler=euler", "sampler.steps=1", "dirs.run=out",
        cwd=tmp_path,
    )  # fmt: skip
    assert sampled.code == 0, sampled.err
    stored = np.load(tmp_path / "out" / "samples.npz")
    assert (stored["nfe"] == 1).all()
    assert np.isfinite(stored["x"]).all()
    again = flowexp("pairs", "run=student", "num=20", cwd=tmp_path)
    assert again.code == 0, again.err


def test_a_training_on_pairs_continues_bit_for_bit(teacher, tmp_path):
    annealed = ["coupling=annealed_pairs", "coupling.annealing.kimg=0.2", f"pairs={teacher}/pairs"]
    common = ["train", *REFLOW, *annealed, "callbacks=none"]
    whole = flowexp(*common, "dirs.run=whole", cwd=tmp_path)
    assert whole.code == 0, whole.err
    for length in ("trainer.max_kimg=0.096", "trainer.max_kimg=0.256"):
        part = flowexp(*common, length, "dirs.run=parts", cwd=tmp_path)
        assert part.code == 0, part.err
    a, b = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("whole", "parts")
    )
    assert a["step"] == b["step"] == 8
    for name, tensor in a["network"].items():
        assert torch.equal(tensor, b["network"][name]), name


def test_real_pairs_join_those_of_the_teacher(teacher, tmp_path):
    real = flowexp(
        "pairs", f"run={teacher}", "from=data", "num=20", "batch_size=8", "dirs.run=real",
        cwd=tmp_path,
    )  # fmt: skip
    assert real.code == 0, real.err
    done = flowexp(
        "train", *REFLOW, f"pairs=[{teacher}/pairs,real,real]", "dirs.run=g", cwd=tmp_path
    )
    assert done.code == 0, done.err
    assert len(json.loads((tmp_path / "g" / "manifest.json").read_text())["parents"]) == 3


def test_a_store_that_is_not_what_it_says_is_refused(teacher, tmp_path):
    """Digests in order, pictures of something else: only the teacher can tell."""
    import hashlib

    shutil.copytree(teacher / "pairs", tmp_path / "pairs")
    digests = {}
    for file in sorted((tmp_path / "pairs").glob("shard_*.npz")):
        columns = dict(np.load(file))
        columns["images"] = 255 - columns["images"]
        np.savez(file, **columns)
        digests[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "pairs" / "digests.json").write_text(json.dumps(digests))
    wrong = flowexp("train", *REFLOW, "pairs=pairs", "dirs.run=student", cwd=tmp_path)
    assert wrong.code == 2
    assert "images" in wrong.err
    assert not (tmp_path / "student").exists()
    changed = bytearray((tmp_path / "pairs" / "shard_000002.npz").read_bytes())
    changed[300] ^= 255
    (tmp_path / "pairs" / "shard_000002.npz").write_bytes(bytes(changed))
    damaged = flowexp("train", *REFLOW, "pairs=pairs", "dirs.run=student", cwd=tmp_path)
    assert damaged.code == 2
    assert "shard_000002.npz was changed or damaged" in damaged.err


def test_a_teacher_that_is_gone_is_said_in_the_log(teacher, tmp_path):
    shutil.copytree(teacher / "pairs", tmp_path / "pairs")
    manifest = (tmp_path / "pairs" / "manifest.json").read_text()
    (tmp_path / "pairs" / "manifest.json").write_text(
        manifest.replace('"sha256": "', '"sha256": "gone')
    )
    done = flowexp("train", *REFLOW, "pairs=pairs", "dirs.run=student", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "was not compared with its teacher" in (tmp_path / "student" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pairs", "run=RUN", "guidance=cfg", *SMALL], ["guidance", "dirs.run"]),
        (["pairs", "run=RUN", "latents=reference", *SMALL], ["start.noise=arrays"]),
        (["pairs", "run=RUN", "from=data", "seeds=0-5000", "dirs.run=a"], ["0-1496"]),
        (["pairs", "run=RUN", "from=nowhere"], ["start", "nowhere"]),
        (["pairs", "run=RUN", "num=0"], ["num", "at least 1"]),
        (["train", *TINY, "coupling=pairs"], ["flowexp pairs run=DIR"]),
        (["train", *TINY, "pairs=RUN/pairs"], ["Independent", "coupling=pairs"]),
        (["train", *TINY, "coupling=pairs", "pairs=RUN"], ["not a pair store"]),
        (
            ["train", *TINY, "coupling=pairs", "pairs=RUN/pairs", "augmentation=edm"],
            ["augmentation", "hflip"],
        ),
        (
            ["train", *TINY, "coupling=annealed_pairs", "pairs=RUN/pairs", "path.D=16"],
            ["coupling", "StudentT"],
        ),
        (
            ["train", *TINY, "coupling=pairs", "pairs=RUN/pairs", "dataset=fashion10k"],
            ["1x8x8", "1x28x28"],
        ),
    ],
)
def test_mistakes_are_answered_in_one_sentence(teacher, tmp_path, arguments, words):
    before = content(teacher / "pairs")
    wrong = flowexp(*[str(a).replace("RUN", str(teacher)) for a in arguments], cwd=tmp_path)
    assert wrong.code == 2, wrong.out
    assert "Traceback" not in wrong.err
    for word in words:
        assert word in wrong.err
    assert content(teacher / "pairs") == before


@pytest.mark.parametrize("experiment", ["digits/inverted", "digits/deblurred"])
def test_domain_transfer_trains_and_samples(tmp_path, experiment):
    tiny = ["trainer.max_kimg=0.128", "trainer.batch_size=32", "network.model_channels=8"]
    done = flowexp("train", f"experiment={experiment}", *tiny, "dirs.run=run", cwd=tmp_path)
    assert done.code == 0, done.err
    sampled = flowexp("sample", "run=run", "seeds=0-3", "dirs.run=out", cwd=tmp_path)
    assert sampled.code == 0, sampled.err
    assert np.load(tmp_path / "out" / "samples.npz")["x"].shape == (4, 1, 8, 8)
