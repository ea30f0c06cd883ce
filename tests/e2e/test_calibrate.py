"""``flowexp calibrate``: once on a run, then a sampler uses it."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

from tests.e2e.command import flowexp, start, wait_for

SMALL = ("for=dpm_solver_v3", "calibration.N=16", "calibration.K=24", "batch_size=12")
FAST = ("sampler=dpm_solver_v3", "num_samples=8", "metric=fd_raw")


@pytest.fixture
def run(trained_once, tmp_path):
    return shutil.copytree(trained_once, tmp_path / "run")


def made_in(run):
    return sorted((run / "calibrations/dpm_solver_v3").glob("*"))


def test_calibrate_then_evaluate(run, tmp_path):
    outcome = flowexp("calibrate", "run=run", *SMALL, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert "flowexp eval run=run sampler=dpm_solver_v3" in outcome.out
    manifest, numbers = made_in(run)
    assert (manifest.suffix, numbers.suffix) == (".json", ".npz")
    assert json.loads(manifest.read_text())["settings"]["K"] == 24
    told = flowexp("eval", "run=run", *FAST, "sampler.steps=4,6", "-m", cwd=tmp_path)
    assert told.code == 0, told.err
    assert "4 network evaluations" in told.out
    assert "6 network evaluations" in told.out
    refused = flowexp("eval", "run=run", *FAST, "weights=raw", cwd=tmp_path)
    assert refused.code == 2
    assert "was made on weights main, not raw" in refused.err


def test_a_killed_calibration_continues(run, trained_once, tmp_path):
    whole = flowexp("calibrate", "run=run", *SMALL, cwd=tmp_path)
    assert whole.code == 0, whole.err
    expected = np.load(made_in(run)[1])
    shutil.copytree(trained_once, tmp_path / "other")
    process = start("calibrate", "run=other", *SMALL, cwd=tmp_path)
    parts = tmp_path / "other/calibrations"
    wait_for(lambda: len(list(parts.rglob("l_*.npz"))) > 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = flowexp("calibrate", "run=other", *SMALL, cwd=tmp_path)
    assert again.code == 0, again.err
    found = np.load(made_in(tmp_path / "other")[-1])
    for key in expected.files:
        assert np.array_equal(found[key], expected[key])


def test_wrong_use_says_how(run, tmp_path):
    unknown = flowexp("calibrate", "run=run", "for=dpm_solver_v4", cwd=tmp_path)
    assert unknown.code == 2
    assert "dpm_solver_v3" in unknown.err
    missing = flowexp("eval", "run=run", *FAST, cwd=tmp_path)
    assert missing.code == 2
    assert "flowexp calibrate run=" in missing.err
    nothing = flowexp("calibrate", "for=dpm_solver_v3", cwd=tmp_path)
    assert nothing.code == 2
    assert "Give run=DIR" in nothing.err
