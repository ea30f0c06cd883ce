"""The calibration of DPM-Solver-v3: stored, resumed, shared, refused."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flowexp.autoencoders import Pixels
from flowexp.calibration import ModelStatisticsCalibration
from flowexp.data import Dataset, ImageArrays
from flowexp.models import Origin
from flowexp.paths import VE, Linear, Path
from flowexp.pipeline import Processes
from flowexp.samplers import DPMSolverV3, Euler, LogSNR, Natural, StoredStatistics
from tests.calibration.subjects import subject_of
from tests.samplers.closed_forms import MixtureModel
from tests.tasks.pictures import inpainting
from tests.two_processes import in_two_processes

SHAPE = (1, 2, 2)
GRID = LogSNR(sigma_min=0.002, sigma_max=200.0, to_zero=False)


class Tiles(Dataset):
    """Random little pictures."""

    def __init__(self):
        super().__init__(name="tiles", shape=SHAPE, num_classes=0)

    def locate(self):
        pass

    def _read(self):
        images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
        return ImageArrays.of(images, None, num_classes=0, name="tiles/train")


class KilledError(Exception):
    """The process is gone."""


class Dying(MixtureModel):
    """A model whose process is killed at a call."""

    calls_left = 10**9

    def predict(self, x_t, t, **conditions):
        if self.calls_left <= 0:
            raise KilledError
        self.calls_left -= 1
        return super().predict(x_t, t, **conditions)


def subject(tmp_path, **changes):
    path = Path(VE(t_min=0.002, t_max=80.0))
    m = torch.tensor([[1.0, 0.5, -0.5, 0.2], [-1.0, 0.25, 0.75, -0.4]])
    model = Dying(path, [0.4, 0.6], m, 0.3)
    model.origin = Origin("abc", "main", tmp_path / "calibrations")
    parts = {
        "model": model,
        "sampler": Euler(steps=2, time_grid=Natural()),
        "dataset": Tiles(),
        "batch_size": 4,
    }
    return subject_of(**(parts | changes))


def run(given, calibration):
    directory = given.model.origin.calibrations / calibration.method
    return calibration.calibrate(given, directory=directory)


def small(**options):
    return ModelStatisticsCalibration(**{"N": 12, "K": 8, **options})


def arrays(file):
    with np.load(file) as content:
        return {key: content[key] for key in content.files}


def test_makes_what_the_sampler_uses(tmp_path):
    given = subject(tmp_path)
    made = run(given, small())
    assert made.use[0] == "sampler=dpm_solver_v3"
    sampler = DPMSolverV3(steps=3, time_grid=GRID, statistics=StoredStatistics())
    samples = sampler.sample(given.model, torch.zeros(2, *SHAPE))
    assert samples.nfe.tolist() == [3, 3]
    found = arrays(made.file)
    assert {key: value.shape for key, value in found.items()} == {
        "lam": (13,), "l": (13, *SHAPE), "s": (13, *SHAPE), "b": (13, *SHAPE)
    }  # fmt: skip
    # from about 1 at the noise end to about 0 at the data end
    assert found["l"][0].min() > 0.99
    assert abs(found["l"][-1]).max() < 0.01
    # nothing but the result is left
    names = sorted(p.name for p in made.file.parent.iterdir())
    assert names == [made.file.with_suffix(".json").name, made.file.name]


def test_manifest_says_what_the_numbers_depend_on(tmp_path):
    given = subject(tmp_path)
    manifest = json.loads(run(given, small()).file.with_suffix(".json").read_text())
    assert manifest["identity"] == {
        "weights_sha256": "abc", "weights": "main", "path": repr(given.model.path)
    }  # fmt: skip
    settings = manifest["settings"]
    assert (settings["N"], settings["K"], settings["seed"]) == (12, 8, 0)
    assert (settings["t_start"], settings["t_end"]) == (80.0, 0.002)
    assert settings["data"] == Tiles().train().fingerprint


# within the first pass, between the passes, within the second
@pytest.mark.parametrize("calls", [9, 26, 41])
def test_a_killed_calibration_continues_to_the_same_bits(tmp_path, calls):
    whole = arrays(run(subject(tmp_path / "whole"), small()).file)
    killed = subject(tmp_path / "killed")
    killed.model.calls_left = calls
    with pytest.raises(KilledError):
        run(killed, small())
    assert not list(killed.model.origin.calibrations.rglob("[!.]*.json"))
    again = subject(tmp_path / "killed")
    again.model.calls_left = 26 + 52 - calls + 4
    resumed = arrays(run(again, small()).file)
    for key, value in whole.items():
        assert np.array_equal(resumed[key], value), key


def test_what_is_there_is_not_measured_again(tmp_path):
    first = run(subject(tmp_path), small())
    again = subject(tmp_path)
    again.model.calls_left = 0
    assert run(again, small()).file == first.file


def test_other_settings_are_other_files(tmp_path):
    given = subject(tmp_path)
    files = {run(given, small(**o)).file for o in ({}, {"K": 4}, {"probes": None}, {"fixed_l": 1})}
    files.add(run(dataclasses.replace(given, seed=1), small()).file)
    assert len(files) == 5


def test_fixed_l_skips_the_first_pass(tmp_path):
    found = arrays(run(subject(tmp_path), small(fixed_l=1.0)).file)
    assert (found["l"] == 1.0).all()
    assert found["s"].std() > 0.0


def calibrate_together(folder):
    """Calibrate with the other processes, and write how often each asked the model."""
    with Processes.start() as processes:
        given = subject(folder, processes=processes)
        given.model.calls_left = 10**6
        run(given, small())
        calls = 10**6 - given.model.calls_left
        folder.with_name(f"{folder.name}_calls_{processes.rank}").write_text(str(calls))


def test_two_processes_make_the_same_numbers_together(tmp_path):
    whole = arrays(run(subject(tmp_path / "one"), small()).file)
    in_two_processes(calibrate_together, tmp_path / "two")
    calls = [int((tmp_path / f"two_calls_{rank}").read_text()) for rank in (0, 1)]
    assert 26 + 52 == sum(calls)
    assert max(calls) - min(calls) <= 6
    (file,) = (tmp_path / "two").rglob("*.npz")
    for key, value in arrays(file).items():
        assert np.array_equal(whole[key], value), key


def test_reference_layout(tmp_path):
    made = run(subject(tmp_path), small(reference_layout=True))
    folder = made.file.with_suffix("")
    assert np.array_equal(arrays(folder / "l.npz")["l"], arrays(made.file)["l"])
    assert set(arrays(folder / "sb.npz")) == {"s", "b"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"N": 0}, "N is 0"),
        ({"K": 0}, "K is 0"),
        ({"probes": 0}, "probes is 0"),
        ({"sigma_min": 5.0, "sigma_max": 1.0}, "0 < sigma_min < sigma_max"),
    ],
)
def test_impossible_values(options, told):
    with pytest.raises(ValueError, match=told):
        ModelStatisticsCalibration(**options)


def test_more_data_than_there_are_come_again_with_other_noise(tmp_path):
    made = run(subject(tmp_path), small(K=50, N=3))
    assert np.isfinite(arrays(made.file)["s"]).all()
    assert run(subject(tmp_path), small(K=40, N=3)).file != made.file


def test_statistics_are_of_the_data_with_conditions_made_of_the_same_data():
    """The condition of each datum is that datum, not the held-out image of its number."""
    task = inpainting(num_classes=3)
    data = task.dataset.train()
    given = {"shape": (1, 6, 6), "batch_size": 4, "device": "cpu", "model": None}
    pipeline = SimpleNamespace(task=task, autoencoder=Pixels(), **given)
    model = SimpleNamespace(path=Path(Linear()))
    subject = SimpleNamespace(seed=0, pipeline=pipeline, model=model)
    draws = ModelStatisticsCalibration(N=2, K=12)._draws(subject, data)
    outside = draws.conditions["mask"] < 0
    assert torch.equal(draws.conditions["image"][outside], draws.x[outside])
    assert len(draws.conditions["labels"]) == 12
