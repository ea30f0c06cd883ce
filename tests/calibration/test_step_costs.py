"""BOSS's costs: closed forms, calls, distances, and the calibration that stores them."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from flowexp.calibration import StepCostCalibration
from flowexp.calibration.base import FineTrajectory
from flowexp.calibration.step_costs import squared_distance, step_costs
from flowexp.errors import UsageError
from flowexp.guidance import Guidance
from flowexp.models import FlowModel, Model
from flowexp.networks.mlp import MLP
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import Linear, Path, Prediction
from flowexp.samplers import (
    AdamsBashforth,
    DormandPrince,
    Euler,
    Given,
    Heun,
    Midpoint,
    Natural,
    StateNoise,
    Uniform,
)
from flowexp.samplers.bellman import least_cost_path
from tests.autoencoders.tiny import Random
from tests.calibration.subjects import KilledError, arrays, names, run, run_in_two, subject
from tests.samplers.closed_forms import MixtureModel

PATH = Path(Linear())
FINE = 10


def euler(**options):
    return Euler(steps=1, time_grid=Uniform(), **options)


def boss(**options):
    given = {"rule": euler(), "time_grid": Natural(), "num": 24, "fine_steps": FINE}
    return StepCostCalibration(**given | options)


class OfTime(Model):
    """A velocity that depends on time only."""

    def __init__(self, rule):
        self.path, self.rule, self.time_range, self.calls = PATH, rule, (0.0, 1.0), 0

    def predict(self, x_t, t, **conditions):
        self.calls += 1
        return Prediction.of_velocity(self.path, x_t, t, self.rule(x_t, t))


def trajectory(model, *, steps=FINE, batch=3):
    rng = torch.Generator().manual_seed(0)
    e = torch.randn(batch, 2, dtype=torch.float64, generator=rng)
    times = Uniform().times(model, steps)
    return FineTrajectory.simulate(model, e, times, variable=euler().variable, conditions={}), times


def test_straight_trajectories_cost_nothing():
    fine, _ = trajectory(OfTime(lambda x, t: torch.full_like(x, 2.0)))
    cost = step_costs(fine, rule=euler(), distance=squared_distance)
    assert float(cost.abs().max()) < 1e-28


def test_a_velocity_of_time_alone_has_closed_form_costs():
    fine, times = trajectory(OfTime(lambda x, t: t**2 * torch.ones_like(x)), batch=3)
    cost = step_costs(fine, rule=euler(), distance=squared_distance)
    for j in range(FINE + 1):
        for k in range(FINE + 1):
            walked = sum(float((times[i + 1] - times[i]) * times[i] ** 2) for i in range(j, k))
            jumped = float((times[k] - times[j]) * times[j] ** 2)
            # three samples of two dimensions
            expected = 6 * (walked - jumped) ** 2 if k > j else 0.0
            assert float(cost[j, k]) == pytest.approx(expected, rel=1e-13, abs=1e-15)


def test_the_velocity_of_a_step_is_read_at_its_start():
    fine, times = trajectory(OfTime(lambda x, t: x * t))
    cost = step_costs(fine, rule=euler(), distance=squared_distance)
    landed = fine.states[2] * (1 + float((times[7] - times[2]) * times[2]))
    expected = float((landed - fine.states[7]).square().sum())
    assert float(cost[2, 7]) == pytest.approx(expected, rel=1e-12)
    assert expected > 1e-4


def test_euler_steps_cost_no_calls_and_others_only_those_after_the_first():
    model = OfTime(lambda x, t: x * t)
    fine, _ = trajectory(model)
    assert model.calls == FINE
    step_costs(fine, rule=euler(), distance=squared_distance)
    assert model.calls == FINE
    heun = Heun(steps=1, time_grid=Uniform())
    step_costs(fine, rule=heun, distance=squared_distance)
    # one more for every pair of times that does not end at the data, where Heun's step is Euler's
    assert model.calls == FINE + FINE * (FINE - 1) // 2


def test_the_rule_is_the_step_that_is_judged():
    fine, times = trajectory(OfTime(lambda x, t: x * t))
    cost = step_costs(
        fine, rule=Heun(steps=1, time_grid=Uniform()), distance=squared_distance
    )  # fmt: skip
    h, x = float(times[6] - times[1]), fine.states[1]
    first = x * times[1]
    second = (x + h * first) * times[6]
    expected = float((x + h * (first + second) / 2 - fine.states[6]).square().sum())
    assert float(cost[1, 6]) == pytest.approx(expected, rel=1e-12)


def test_networks_are_asked_without_gradients():
    network = MLP(in_channels=2, out_channels=2, hidden=8, depth=1)
    model = FlowModel(PATH, network=network, parameterization=VelocityPrediction())
    fine, _ = trajectory(model, steps=4)
    cost = step_costs(
        fine, rule=Midpoint(steps=1, time_grid=Uniform()), distance=squared_distance
    )  # fmt: skip
    assert not cost.requires_grad


@pytest.mark.parametrize("steps", [4, 6])
def test_bellman_steps_end_nearer_than_even_ones(steps):
    """On eight narrow modes; the sum of costs is not the error at the end, so not on all data."""
    rng = torch.Generator().manual_seed(1)
    means = torch.randn(8, 8, dtype=torch.float64, generator=rng)
    model = MixtureModel(PATH, torch.full((8,), 0.125), means, 0.03)
    e, fresh = (torch.randn(n, 8, dtype=torch.float64, generator=rng) for n in (100, 1000))
    times = Uniform().times(model, 50)
    fine = FineTrajectory.simulate(model, e, times, variable=euler().variable, conditions={})
    cost = step_costs(fine, rule=euler(), distance=squared_distance)
    best = Given(values=times[least_cost_path(cost, steps)[0]].tolist())
    end = Euler(steps=50, time_grid=Uniform()).sample(model, fresh).x
    of_best, of_even = (
        float((Euler(steps=steps, time_grid=grid).sample(model, fresh).x - end).square().mean())
        for grid in (best, Uniform())
    )
    assert of_best < 0.9 * of_even


@pytest.mark.parametrize("steps", range(1, FINE + 1))
def test_bellman_steps_never_cost_more_than_even_ones(tmp_path, steps):
    cost = arrays(run(subject(tmp_path), boss()).file)["cost"]
    _, best = least_cost_path(cost, steps)
    even = [round(i * FINE / steps) for i in range(steps + 1)]
    of_even = sum(float(cost[a, b]) for a, b in pairwise(even))
    assert best <= of_even
    assert steps < FINE or best == 0.0


def test_what_is_stored_and_told(tmp_path):
    given = subject(tmp_path)
    made = run(given, boss())
    stored = arrays(made.file)
    assert stored["cost"].shape == (FINE + 1, FINE + 1)
    torch.testing.assert_close(
        stored["times"], torch.linspace(1, 0, FINE + 1, dtype=torch.float64), rtol=0, atol=0
    )
    assert given.model.calls == 3 * FINE
    manifest = json.loads(made.file.with_suffix(".json").read_text())
    assert manifest["identity"]["weights_sha256"] == "abc"
    assert manifest["settings"]["num"] == 24
    assert list(made.use) == ["sampler=boss", "sampler.steps=4"]
    assert names(made.file) == [made.file.with_suffix(".json").name, made.file.name]
    by_heun = run(given, boss(rule=Heun(steps=1, time_grid=Uniform())))
    assert by_heun.use[:2] == ["sampler=heun", "sampler/time_grid=bellman"]


def test_the_mean_does_not_depend_on_how_the_draws_are_batched(tmp_path):
    whole = arrays(run(subject(tmp_path / "a", batch_size=24), boss()).file)
    parts = arrays(run(subject(tmp_path / "b", batch_size=5), boss()).file)
    torch.testing.assert_close(whole["cost"], parts["cost"], rtol=1e-12, atol=1e-15)


def test_a_killed_calibration_continues_to_the_same_bytes(tmp_path):
    whole = run(subject(tmp_path / "whole"), boss())
    killed = subject(tmp_path / "killed")
    killed.model.calls_left = FINE + 3
    with pytest.raises(KilledError):
        run(killed, boss())
    assert not list(killed.model.origin.calibrations.rglob("[!.]*.json"))
    again = subject(tmp_path / "killed")
    again.model.calls_left = 2 * FINE
    resumed = run(again, boss())
    assert resumed.file.name == whole.file.name
    assert resumed.file.read_bytes() == whole.file.read_bytes()


def test_two_processes_share_the_work_and_make_the_same_bytes(tmp_path):
    whole = run(subject(tmp_path / "one"), boss())
    made, calls = run_in_two(tmp_path / "two", boss())
    assert calls == [2 * FINE, FINE]
    assert made[0].file.read_bytes() == whole.file.read_bytes()
    assert names(made[0].file) == names(whole.file)


def test_what_is_there_is_not_measured_again(tmp_path):
    first = run(subject(tmp_path), boss())
    again = subject(tmp_path)
    assert run(again, boss()).file == first.file
    assert again.model.calls == 0


class Slowed(Guidance):
    """Another model of the same face."""

    def wrap(self, model):
        return OfTime(lambda x, t: model.velocity(x, t) * 0.5)


def test_the_guided_model_is_measured(tmp_path):
    plain = arrays(run(subject(tmp_path / "a"), boss()).file)["cost"]
    guided = arrays(run(subject(tmp_path / "b", guidance=Slowed()), boss()).file)["cost"]
    assert float((plain - guided).abs().max()) > 0.1 * float(plain.max())


def test_other_settings_guidance_and_tasks_are_other_files(tmp_path):
    calibrations = [
        boss(),
        boss(num=16),
        boss(fine_steps=12),
        boss(rule=Heun(steps=1, time_grid=Uniform())),
        boss(time_grid=Given(values=[1.0, 0.5, *(0.4 - 0.05 * i for i in range(8)), 0.0])),
    ]
    files = {run(subject(tmp_path), one).file for one in calibrations}
    for asked in ({"guidance": {"scale": 2.0}}, {"guidance": {"scale": 3.0}}, {"task": "7"}):
        files.add(run(subject(tmp_path, config=asked), boss()).file)
    files.add(run(subject(tmp_path, seed=1), boss()).file)
    assert len(files) == 9


def test_a_perceptual_distance_is_given_images_in_range(tmp_path):
    seen = []

    def farthest(a, b):
        seen.append(max(float(a.abs().max()), float(b.abs().max())))
        assert a.dtype == b.dtype == torch.float32
        return (a - b).abs().flatten(1).amax(1)

    clipped = arrays(run(subject(tmp_path), boss(distance=farthest)).file)["cost"]
    assert max(seen) == 1.0
    squared = arrays(run(subject(tmp_path), boss()).file)["cost"]
    assert not torch.allclose(clipped, squared)
    assert float(clipped.triu(1).max()) > 0.0
    assert float(clipped.diagonal(1).max()) < 1e-6


def test_a_perceptual_distance_of_latents_is_refused(tmp_path):
    pixels = subject(tmp_path)
    latents = replace(pixels, pipeline=replace(pixels.pipeline, autoencoder=Random()))
    with pytest.raises(UsageError, match="but the flow is on latents"):
        run(latents, boss(distance=torch.dist))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num": 0}, "num is 0"),
        ({"fine_steps": 1}, "fine_steps is 1"),
        ({"rule": AdamsBashforth(steps=1, time_grid=Uniform())}, "AdamsBashforth"),
        ({"rule": euler(perturbation=StateNoise(scale=0.1))}, "Euler, whose steps depend"),
    ],
)
def test_impossible_values_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        boss(**options)


def test_a_sampler_without_steps_is_told_the_costs_all_the_same(tmp_path):
    made = run(subject(tmp_path, sampler=DormandPrince()), boss())
    assert list(made.use) == ["sampler=boss"]


def test_a_grid_that_leaves_the_model_is_refused(tmp_path):
    given = subject(tmp_path)
    given.model.time_range = (0.0, 0.9)
    with pytest.raises(ValueError, match="leaves the range"):
        run(given, boss(fine_steps=2, time_grid=Given(values=[1.0, 0.5, 0.0])))
