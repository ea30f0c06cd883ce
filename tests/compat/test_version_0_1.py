"""What version 0.1 left on disk is loaded, continued and rendered: see version_0_1/README.md."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import flowexp
from flowexp.metrics import Protocol
from flowexp.runs import read_checkpoint
from tests.e2e.command import flowexp as command

pytestmark = pytest.mark.e2e

STORED = Path(__file__).parent / "version_0_1"
TRAIN = [
    "experiment=toy2d/rectified_flow",
    "dataset=moons",
    "network.hidden=8",
    "network.depth=1",
    "trainer.batch_size=64",
    "trainer.max_kimg=1.28",
    "trainer.log_every=5",
    "trainer.checkpoint_kimg=0.64",
    "trainer.keep_checkpoints=null",
    "sampler=heun",
    "sampler.steps=4",
]


@pytest.fixture
def stored(tmp_path):
    return shutil.copytree(STORED, tmp_path / "stored")


def run(folder, *arguments):
    done = command(*arguments, cwd=folder)
    assert done.code == 0, done.err
    return done.out + done.err


def leaves(value, key=""):
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{key}.{name}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(item, f"{key}[{number}]")
    else:
        yield key, value


@pytest.mark.parametrize(
    ("name", "more"), [("flow", []), ("student", ["objective=phased", "teacher=flow"])]
)
def test_a_stopped_training_goes_on_to_the_same_state(stored, name, more):
    last = stored / name / "checkpoints" / "last.ckpt"
    expected = read_checkpoint(last)
    last.unlink()
    said = run(stored, "train", *TRAIN, *more, f"dirs.run={name}")
    assert "continuing at step 10" in said
    found = dict(leaves(read_checkpoint(last)))
    compared = 0
    for key, value in leaves({k: v for k, v in expected.items() if k != "config"}):
        if torch.is_tensor(value):
            # bit for bit on the processor that wrote it; others round differently
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6)
            compared += 1
        else:
            assert found[key] == value, key
    assert compared > 20


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("flow", ["sampler=boss", "sampler.steps=3"]),
        ("edm", ["sampler=dpm_solver_v3", "sampler.steps=4"]),
    ],
)
def test_calibrations_are_found_and_give_the_same_number(stored, name, sampler):
    results = stored / name / "results.json"
    run(stored, "eval", f"run={name}", "num_samples=64", *sampler)
    before, after = json.loads(results.read_text())["evaluations"]
    old, new = before["records"][0], after["records"][0]
    assert new["key"] == old["key"] == "eval/fd_raw_64"
    assert new["value"] == pytest.approx(old["value"], rel=1e-4)
    # the stored one does not state fields that were added since
    protocols = [replace(Protocol(**one["protocol"]), seeds=None) for one in (new, old)]
    assert protocols[0] == protocols[1]
    assert protocols[0].selection == "last"


def test_pairs_are_compared_with_their_teacher_and_trained_on(stored):
    said = run(
        stored, "train", *TRAIN, "coupling=pairs", "pairs=flow/pairs", "init=flow",
        "trainer.max_kimg=0.064", "dirs.run=reflow",
    )  # fmt: skip
    assert "not compared" not in said
    assert read_checkpoint(stored / "reflow" / "checkpoints" / "last.ckpt")["step"] == 1


def test_chords_are_trained_on(stored):
    run(
        stored, "train", *TRAIN, "coupling=chords", "coupling.name=3_steps_32_1d5c458b",
        "init=flow", "trainer.max_kimg=0.064", "dirs.run=straightened",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "file"), [("table", "mine_one_cpu"), ("claim", "claim_mine_one_cpu")]
)
def test_finished_tables_and_claims_are_rendered_without_running_anything(stored, kind, file):
    path = stored / "outputs" / "tables" / f"{file}.json"
    before = json.loads(path.read_text())
    path.unlink()
    said = run(stored, "table", "mine/one", f"kind={kind}", "--config-dir", "conf", "budget=cpu")
    assert "running" not in said
    after = json.loads(path.read_text())
    rows = "rows" if kind == "table" else "arms"
    measured = [[row["measured"]["values"] for row in result[rows]] for result in (before, after)]
    assert measured[0] == measured[1]


def test_an_exported_file_is_the_run_it_came_from(stored):
    exported = flowexp.load(next(stored.glob("flow/export/*/main.safetensors")), device="cpu")
    original = flowexp.load(stored / "flow", device="cpu").replace(sampler=exported.sampler)
    np.testing.assert_array_equal(exported.sample(range(4)), original.sample(range(4)))
