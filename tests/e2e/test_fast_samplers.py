"""BOSS and FlowTurbo from a finished run to samples, with the commands of a user."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

from tests.e2e.command import TINY, flowexp, start, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def teacher(trained_once, tmp_path_factory):
    """A run of its own, which these tests calibrate one after the other."""
    folder = tmp_path_factory.mktemp("fast")
    shutil.copytree(trained_once, folder / "run")
    return folder / "run"


def done(*arguments, cwd):
    outcome = flowexp(*arguments, cwd=cwd, env=ONE_THREAD)
    assert outcome.code == 0, outcome.err
    return outcome.out


def test_boss_from_costs_to_a_straightened_model(teacher):
    folder = teacher.parent
    costs = ("calibrate", f"run={teacher}", "for=boss", "sampler.steps=3", "batch_size=2",
             "calibration.num=32", "calibration.fine_steps=20")  # fmt: skip
    calibrations = teacher / "calibrations" / "boss"
    killed = start(*costs, cwd=folder)
    wait_for(
        lambda: len(list(calibrations.glob(".*/costs_*.npz"))) > 1 or killed.poll() is not None
    )
    assert killed.poll() is None, "the calibration ended before it could be killed"
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not list(calibrations.glob("[!.]*.json"))
    told = done(*costs, cwd=folder)
    assert "3 steps at" in told
    assert "sampler=boss sampler.steps=3" in told
    (file,) = calibrations.glob("*.npz")
    assert np.load(file)["cost"].shape == (21, 21)

    told = done("eval", f"run={teacher}", "sampler=boss", "sampler.steps=3", "num_samples=32",
                "metric=fd_raw",
                cwd=folder)  # fmt: skip
    assert "3 network evaluations" in told

    told = done("calibrate", f"run={teacher}", "for=chords", "sampler=boss", "sampler.steps=3",
                "calibration.num=32", "calibration.fine_steps=20", "calibration.label=best_3",
                cwd=folder)  # fmt: skip
    assert "flowexp train init=run coupling=chords coupling.name=best_3" in told

    rest = [one for one in TINY if not one.startswith("network.")]
    done("train", *rest, "network=lora", "network.network.model_channels=8",
         "network.network.pixel_unshuffle=1", "coupling=chords", "coupling.name=best_3",
         f"init={teacher}", "sampler=boss", "dirs.run=straight", cwd=folder)  # fmt: skip
    manifest = json.loads((folder / "straight" / "manifest.json").read_text())
    assert manifest["parents"]["init"]["run"] == str(teacher)
    done("sample", "run=straight", "seeds=0-3", "dirs.run=out", cwd=folder)
    stored = np.load(folder / "out" / "samples.npz")
    assert stored["nfe"].tolist() == [3] * 4
    assert np.isfinite(stored["x"]).all()


def test_costs_of_the_teacher_are_not_the_students(teacher):
    (teacher.parent / "other").mkdir()
    copy = teacher.parent / "other" / "run"
    shutil.copytree(teacher, copy, ignore=shutil.ignore_patterns("calibrations"))
    refused = flowexp("eval", f"run={copy}", "sampler=boss", cwd=teacher.parent, env=ONE_THREAD)
    assert refused.code == 2
    assert f"flowexp calibrate run={copy} for=boss" in refused.err


def test_flowturbo_with_a_trained_refiner(teacher):
    folder = teacher.parent
    done("train", *TINY, "parameterization=velocity_increment", "objective=velocity_refinement",
         "network.in_channels=2", f"teacher={teacher}", "callbacks=progress", "dirs.run=refiner",
         cwd=folder)  # fmt: skip
    told = done("eval", f"run={teacher}", "sampler=flowturbo", "sampler.blocks=H1P2R2",
                "sampler/refiner=trained", "sampler.refiner.run=refiner", "num_samples=32",
                "metric=fd_raw",
                cwd=folder)  # fmt: skip
    assert "4 network evaluations" in told
