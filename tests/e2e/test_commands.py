"""What a user types, from training to a number."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.e2e.command import TINY, flowexp

pytestmark = pytest.mark.e2e


def test_a_run_holds_everything(trained_run):
    names = {p.name for p in trained_run.iterdir()}
    assert {"config.yaml", "overrides.yaml", "manifest.json", "log.txt", "metrics.jsonl"} <= names
    config = yaml.safe_load((trained_run / "config.yaml").read_text())
    assert config["trainer"]["max_kimg"] == 0.256
    assert "${" not in (trained_run / "config.yaml").read_text()
    manifest = json.loads((trained_run / "manifest.json").read_text())
    assert manifest["choices"]["path"] == "linear"
    rows = [json.loads(line) for line in (trained_run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 8
    assert list((trained_run / "samples").glob("*.png"))


def test_eval_changes_only_what_it_is_told(trained_run, tmp_path):
    metric = ["metric=fd_raw", "num_samples=40", "batch_size=16"]
    first = flowexp("eval", f"run={trained_run}", *metric, cwd=tmp_path)
    assert first.code == 0, first.err
    again = flowexp("eval", f"run={trained_run}", *metric, "sampler.steps=5", cwd=tmp_path)
    assert again.code == 0, again.err
    other = flowexp("eval", f"run={trained_run}", *metric, "sampler=dopri5", cwd=tmp_path)
    assert other.code == 0, other.err
    stored = json.loads((trained_run / "results.json").read_text())
    records = [r for entry in stored["evaluations"] for r in entry["records"]]
    nfe = [r["protocol"]["nfe"] for r in records[-3:]]
    assert nfe[0] == 5.0
    assert nfe[1] == 9.0
    assert nfe[2] > 9
    assert all(r["protocol"]["n_gen"] == 40 for r in records[-3:])
    assert "40" in first.out


def test_repeats_are_disjoint_ranges_with_their_spread(trained_run, tmp_path):
    few = ["metric=fd_raw", "num_samples=12", "repeats=3", "sampler.steps=2"]
    done = flowexp("eval", f"run={trained_run}", *few, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "3 seed ranges" in done.out
    assert "minimum" in done.out
    stored = json.loads((trained_run / "results.json").read_text())["evaluations"][-3:]
    seeds = [entry["records"][0]["protocol"]["seeds"] for entry in stored]
    assert seeds == ["0-11", "12-23", "24-35"]
    wrong = flowexp("eval", f"run={trained_run}", *few, "seeds=0-11", cwd=tmp_path)
    assert wrong.code == 2
    assert "repeats" in wrong.err


def test_eval_with_a_time_grid_of_its_own(trained_run, tmp_path):
    grid = ["sampler/time_grid=edm", "sampler.time_grid.rho=5"]
    done = flowexp(
        "eval", f"run={trained_run}", *grid, "metric=fd_raw", "num_samples=20", cwd=tmp_path
    )
    assert done.code == 0, done.err


def test_sample_writes_arrays_grid_and_pictures(trained_run, tmp_path):
    done = flowexp(
        "sample", f"run={trained_run}", "seeds=0-9", "png=true", "dirs.run=out", cwd=tmp_path
    )
    assert done.code == 0, done.err
    stored = np.load(tmp_path / "out" / "samples.npz")
    assert stored["x"].shape == (10, 1, 8, 8)
    assert np.isfinite(stored["x"]).all()
    assert stored["seeds"].tolist() == list(range(10))
    assert set(stored["labels"].tolist()) <= set(range(10))
    assert (stored["nfe"] == 5).all()
    with Image.open(tmp_path / "out" / "grid.png") as grid:
        assert grid.size[0] > 16


def samples(run, folder, **options):
    arguments = [f"{k}={v}" for k, v in options.items()]
    done = flowexp("sample", f"run={run}", "dirs.run=out", *arguments, cwd=folder)
    assert done.code == 0, done.err
    return np.load(folder / "out" / "samples.npz")


def test_samples_do_not_depend_on_the_batch_size(trained_run, tmp_path_factory):
    make = tmp_path_factory.mktemp
    whole = samples(trained_run, make("a"), seeds="0-63", batch_size=64)
    for size in (16, 7):
        parts = samples(trained_run, make("b"), seeds="0-63", batch_size=size)
        assert np.array_equal(parts["labels"], whole["labels"])
        assert np.abs(parts["x"] - whole["x"]).max() < 1e-5
    middle = samples(trained_run, make("c"), seeds="20-29", batch_size=64)
    assert np.abs(middle["x"] - whole["x"][20:30]).max() < 1e-5


def test_samples_do_not_depend_on_the_number_of_processes(trained_run, tmp_path):
    import os
    import subprocess
    import sys

    (tmp_path / "one").mkdir()
    one = samples(trained_run, tmp_path / "one", seeds="0-63", batch_size=16)
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"),
            *("-m", "flowexp", "sample", f"run={trained_run}", "seeds=0-63", "batch_size=16"),
            "dirs.run=two",
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    two = np.load(tmp_path / "two" / "samples.npz")
    assert two["seeds"].tolist() == list(range(64))
    assert np.array_equal(two["labels"], one["labels"])
    assert np.abs(two["x"] - one["x"]).max() < 1e-5


def test_two_devices_train_as_one(tmp_path):
    common = [*TINY, "callbacks=none", "trainer.accelerator=cpu"]
    one = flowexp("train", *common, "dirs.run=one", cwd=tmp_path)
    assert one.code == 0, one.err
    ddp = ["trainer.devices=2", "trainer.strategy=ddp"]
    two = flowexp("train", *common, *ddp, "dirs.run=two", cwd=tmp_path, fresh=True)
    assert two.code == 0, two.err
    assert two.out.count("run directory") == 1
    losses = [
        [
            json.loads(row)["train/loss"]
            for row in (tmp_path / n / "metrics.jsonl").read_text().splitlines()
        ]
        for n in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_sweep_of_several_devices_is_refused(tmp_path):
    sweep = ["trainer.devices=2", "trainer.strategy=ddp", "seed=1,2", "-m"]
    done = flowexp("train", *TINY, *sweep, cwd=tmp_path)
    assert done.code == 2
    assert "trainer.devices" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_runs_every_combination(tmp_path):
    done = flowexp(
        "train", *TINY, "trainer.max_kimg=0.064", "callbacks=none", "seed=1,2", "path=linear,vp",
        "-m", "dirs.sweep=sweep", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    configs = [yaml.safe_load(p.read_text()) for p in sorted(tmp_path.glob("sweep/*/config.yaml"))]
    found = {(c["seed"], c["path"]["schedule"]["_target_"].rpartition(".")[2]) for c in configs}
    assert found == {(1, "Linear"), (1, "VP"), (2, "Linear"), (2, "VP")}
    assert all(
        (tmp_path / "sweep" / str(i) / "checkpoints" / "last.ckpt").is_file() for i in range(4)
    )


def test_a_failing_job_does_not_stop_the_others(tmp_path):
    done = flowexp(
        "train", *TINY, "trainer.max_kimg=0.064", "callbacks=none", "optimizer.lr=1e30,1e-3",
        "-m", "dirs.sweep=sweep", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 1
    assert "Traceback" not in done.err
    assert not (tmp_path / "sweep/0/checkpoints/last.ckpt").exists()
    assert (tmp_path / "sweep/1/checkpoints/last.ckpt").is_file()


def test_check_says_what_it_amounts_to(tmp_path):
    done = flowexp("check", "experiment=fashion10k/pfgmpp", "path.D=128", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "D=128" in done.out
    assert "parameters" in done.out
    assert list(tmp_path.iterdir()) == []


def test_doctor_names_the_remedies(tmp_path):
    done = flowexp("doctor", cwd=tmp_path, env={"FLOWEXP_DATA": str(tmp_path)})
    assert done.code == 0, done.err
    lines = {line.split()[1]: line.split()[0] for line in done.out.splitlines() if "=" in line[:40]}
    assert lines["dataset=fashion10k"] == "ok"
    assert lines["dataset=cifar10"] == "missing"
    assert lines["metric=fd_efflite0"] == "ok"
    assert lines["metric=fid"] == "missing"


def test_list_explains_the_options(tmp_path):
    done = flowexp("list", "path", cwd=tmp_path)
    assert done.code == 0
    explained = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert {"linear", "vp", "edm", "pfgmpp"} <= set(explained)
    everything = flowexp("list", cwd=tmp_path).out
    assert "sampler/time_grid" in everything


def test_d_infinite_is_edm_bit_for_bit(tmp_path):
    for name, choice in (("a", ["path=edm"]), ("b", ["path=pfgmpp", "path.D=inf"])):
        done = flowexp(
            "train", *TINY, *choice, "sampler=edm_heun", "sampler.steps=3", "callbacks=none",
            f"dirs.run={name}", cwd=tmp_path,
        )  # fmt: skip
        assert done.code == 0, done.err
    rows = [
        [
            json.loads(line)["train/loss"]
            for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()
        ]
        for n in "ab"
    ]
    assert rows[0] == rows[1]
