"""PFGM++'s tests of robustness on a stored run: noise per step, fewer steps, fewer bits."""

import json

import pytest

from tests.e2e.command import flowexp

pytestmark = pytest.mark.e2e

NOISE = [
    "sampler=heun",
    "sampler/time_grid=edm",
    "sampler/variable=nsr",
    "sampler.steps=4",
    "sampler/perturbation=state_noise",
]
BITS = ["weight_transform=quantize", "weight_transform.bits=5"]
METRIC = ["metric=fd_raw", "num_samples=20"]


def test_noise_steps_and_bits_compose_and_are_on_record(trained_run, tmp_path):
    disturbed = [*NOISE, "sampler.perturbation.scale=0.1"]
    done = flowexp("eval", f"run={trained_run}", *disturbed, *BITS, *METRIC, cwd=tmp_path)
    assert done.code == 0, done.err
    stored = json.loads((trained_run / "results.json").read_text())["evaluations"][-1]
    protocol = stored["records"][0]["protocol"]
    assert protocol["nfe"] == 7.0
    assert protocol["sampler"] == "Heun, 4 steps, StateNoise, scale=0.1"
    assert protocol["ema"].endswith("weight tensors at 5 bits")


def test_sample_with_quantised_weights_and_without_any_selected(trained_run, tmp_path):
    done = flowexp("sample", f"run={trained_run}", *BITS, "seeds=0-3", cwd=tmp_path)
    assert done.code == 0, done.err
    wrong = flowexp(
        "sample", f"run={trained_run}", *BITS, "weight_transform.include=kernel", cwd=tmp_path
    )
    assert wrong.code == 2
    assert "weight_transform.exclude" in wrong.err
