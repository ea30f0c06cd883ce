"""Chords of trajectories: pairs that are their own path, the grid they need, the stored file."""

import itertools
import json

import pytest
import torch

from flowexp.calibration import ChordCalibration
from flowexp.calibration.chords import endpoints, refined_times
from flowexp.couplings import Chords
from flowexp.objectives import Regression
from flowexp.objectives.premetrics import SquaredL2
from flowexp.objectives.weightings import Uniform as EvenWeight
from flowexp.paths import VE, VP, Linear, Path
from flowexp.samplers import DormandPrince, Euler, Given, Natural, Uniform
from flowexp.tasks import Generation
from tests.calibration.subjects import (
    SHAPE,
    KilledError,
    arrays,
    names,
    run,
    run_in_two,
    subject,
)
from tests.samplers.closed_forms import MixtureModel

FINE = 12


def chords(**options):
    return ChordCalibration(**{"time_grid": Natural(), "num": 20, "fine_steps": FINE} | options)


def states_and_velocities(path, stored):
    """The state at the start of each chord and its velocity, (B, K, ...)."""
    k = stored["x"].shape[1]
    points = [
        path.point(
            stored["x"][:, m].double(), stored["e"][:, m].double(),
            stored["t"][m].expand(len(stored["x"])),
        )
        for m in range(k)
    ]  # fmt: skip
    return [p.x_t for p in points], [p.velocity for p in points]


@pytest.mark.parametrize(
    "path", [Path(Linear()), Path(VP()), Path(VE(t_min=0.002, t_max=80.0))], ids=repr
)
def test_endpoints_are_the_pair_whose_path_has_this_state_and_velocity(path):
    rng = torch.Generator().manual_seed(0)
    x, e = (torch.randn(7, 1, 2, 2, dtype=torch.float64, generator=rng) for _ in range(2))
    t = torch.linspace(0.05, 1.0, 7, dtype=torch.float64) * path.schedule.t_max
    point = path.point(x, e, t)
    found_x, found_e = endpoints(path, point.x_t, point.velocity, t)
    torch.testing.assert_close(found_x, x, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found_e, e, rtol=1e-11, atol=1e-11)


def test_a_fine_grid_gets_the_times_it_lacks_and_no_copies_of_those_it_has():
    fine = torch.linspace(1.0, 0.0, 11, dtype=torch.float64)
    times = torch.tensor([1.0, 1.0 / 3.0, 0.3 + 1e-16, 0.0], dtype=torch.float64)
    joined, places = refined_times(times, fine)
    assert torch.equal(joined[places], times)
    assert len(joined) == 12
    assert bool((joined[:-1] - joined[1:] > 0.01).all())


def test_a_fine_grid_stays_where_the_model_is_defined():
    model = MixtureModel(Path(VE(t_min=0.002, t_max=80.0)), [1.0], torch.zeros(1, 2), 0.5)
    times = Natural().times(model, 4)
    joined, _ = refined_times(times, Natural().times(model, 30))
    assert float(joined[-2]) >= 0.002
    # the chosen times above 0.002 are no times of the fine grid
    assert 30 < len(joined) - 1 <= 33


def test_chords_lead_from_one_state_to_the_next(tmp_path):
    given = subject(tmp_path)
    made = run(given, chords())
    stored = arrays(made.file)
    assert stored["x"].shape == stored["e"].shape == (20, 4, *SHAPE)
    assert stored["t"].tolist() == [1.0, 0.75, 0.5, 0.25]
    states, velocities = states_and_velocities(given.model.path, stored)
    for m in range(3):
        torch.testing.assert_close(
            states[m] - 0.25 * velocities[m], states[m + 1], rtol=0, atol=1e-6
        )
    draws = given.pipeline.latents.draw(range(20), shape=SHAPE, source=given.model.path.source)
    torch.testing.assert_close(states[0], draws.e.double(), rtol=0, atol=1e-6)
    end = Euler(steps=FINE, time_grid=Uniform()).sample(given.model, draws.e.double()).x
    torch.testing.assert_close(states[3] - 0.25 * velocities[3], end, rtol=0, atol=1e-6)


@pytest.mark.parametrize("path", [Path(VP()), Path(VE(t_min=0.002, t_max=20.0))], ids=repr)
def test_a_student_that_follows_the_chords_ends_where_the_teacher_does(tmp_path, path):
    means = torch.tensor([[1.0, 0.5, -0.5, 0.2], [-1.0, 0.25, 0.75, -0.4]])
    teacher = MixtureModel(path, [0.4, 0.6], means, 0.3)
    teacher.origin = subject(tmp_path).model.origin
    sampler = Euler(steps=5, time_grid=Natural())
    stored = arrays(run(subject(tmp_path, model=teacher, sampler=sampler), chords()).file)
    times = sampler.times(teacher)
    states, velocities = states_and_velocities(path, stored)
    x = states[0]
    for m, (a, b) in enumerate(itertools.pairwise(times.tolist())):
        torch.testing.assert_close(states[m], x, rtol=0, atol=1e-4)
        x = x + (b - a) * velocities[m]
    assert float(x.abs().max()) < 4.0


def test_the_teacher_loses_nothing_on_chords_of_its_own_steps(tmp_path):
    given = subject(tmp_path, sampler=Euler(steps=FINE, time_grid=Uniform()))
    run(given, chords())
    zeros = torch.zeros(64, *SHAPE)
    pairs = Chords(run=str(tmp_path / "run")).pair(
        zeros, zeros, {}, rng=torch.Generator().manual_seed(0)
    )
    objective = Regression("velocity", weighting=EvenWeight(), premetric=SquaredL2())
    loss = objective.loss(given.model, pairs, pairs.t, rng=torch.Generator()).per_sample
    assert float(loss.max()) < 1e-11
    coarse = subject(tmp_path)
    run(coarse, chords(label="coarse"))
    pairs = Chords(run=str(tmp_path / "run"), name="coarse").pair(
        zeros, zeros, {}, rng=torch.Generator().manual_seed(0)
    )
    loss = objective.loss(given.model, pairs, pairs.t, rng=torch.Generator()).per_sample
    assert float(loss.mean()) > 1e-4


def test_labels_of_the_trajectories_are_stored_with_them(tmp_path):
    task = Generation(num_classes=5)
    stored = arrays(run(subject(tmp_path, task=task), chords()).file)
    assert torch.equal(stored["labels"], task.conditions(range(20))["labels"])
    assert len(stored["labels"].unique()) > 1


def test_a_killed_calibration_continues_to_the_same_bytes(tmp_path):
    whole = run(subject(tmp_path / "whole"), chords())
    killed = subject(tmp_path / "killed")
    killed.model.calls_left = FINE + 3
    with pytest.raises(KilledError):
        run(killed, chords())
    again = subject(tmp_path / "killed")
    again.model.calls_left = 2 * FINE
    resumed = run(again, chords())
    assert resumed.file.name == whole.file.name
    assert resumed.file.read_bytes() == whole.file.read_bytes()
    assert names(resumed.file) == names(whole.file)


def test_two_processes_share_the_work_and_make_the_same_bytes(tmp_path):
    whole = run(subject(tmp_path / "one"), chords())
    made, calls = run_in_two(tmp_path / "two", chords())
    assert calls == [2 * FINE, FINE]
    assert made[0].file.read_bytes() == whole.file.read_bytes()
    assert names(made[0].file) == names(whole.file)


def test_a_label_stands_for_one_set_of_chords(tmp_path):
    made = run(subject(tmp_path), chords(label="even_4"))
    assert made.file.name == "even_4.npz"
    assert (made.begin, list(made.use)) == (
        "train init", ["coupling=chords", "coupling.name=even_4"]
    )  # fmt: skip
    again = subject(tmp_path)
    assert run(again, chords(label="even_4")).file == made.file
    assert again.model.calls == 0
    with pytest.raises(ValueError, match="'even_4' belongs to chords that were made in another"):
        run(subject(tmp_path), chords(label="even_4", num=16))
    assert json.loads(made.file.with_suffix(".json").read_text())["settings"]["num"] == 20


def test_other_guidance_and_grids_are_other_files(tmp_path):
    files = {run(subject(tmp_path), chords()).file}
    files.add(run(subject(tmp_path, config={"guidance": {"scale": 2.0}}), chords()).file)
    grid = Given(values=[1.0, 0.7, 0.4, 0.1, 0.0])
    files.add(run(subject(tmp_path, sampler=Euler(steps=4, time_grid=grid)), chords()).file)
    assert len(files) == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num": 0}, "num is 0"),
        ({"fine_steps": 0}, "fine_steps is 0"),
        ({"label": "a/b"}, "label is 'a/b'"),
    ],
)
def test_impossible_values_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        chords(**options)


def test_a_sampler_without_known_times_is_refused(tmp_path):
    with pytest.raises(ValueError, match="DormandPrince has no times"):
        run(subject(tmp_path, sampler=DormandPrince()), chords())


def test_more_steps_than_the_model_knows_times_are_refused(tmp_path):
    given = subject(tmp_path)
    given.model.nearest_time = lambda t: (t * 2).round() / 2
    with pytest.raises(ValueError, match="4 steps are finer"):
        run(given, chords())
