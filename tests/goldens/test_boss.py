"""BOSS: trajectories, costs, paths and the straightening loss against the authors' code."""

import re
from pathlib import Path as File

import numpy as np
import torch

from flowexp.calibration.base import FineTrajectory
from flowexp.calibration.chords import endpoints
from flowexp.calibration.step_costs import squared_distance, step_costs
from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives import Regression
from flowexp.objectives.premetrics import SquaredL2
from flowexp.objectives.weightings import Uniform as EvenWeight
from flowexp.paths import Linear, Path, Prediction
from flowexp.samplers import Euler, Time, Uniform
from flowexp.samplers.bellman import least_cost_path
from tests.goldens.harness import dispatch, parametrize
from tests.samplers.closed_forms import MixtureModel

TOLERANCE = 1e-10
PATH = Path(Linear())


def tensor(data, key):
    return torch.from_numpy(np.asarray(data[key], dtype=np.float64))


class Rescaled(Model):
    """The authors' network: at source time s it is evaluated at ``s (1 - eps) + eps``."""

    def __init__(self, data):
        self.inner = MixtureModel(PATH, data["gmm_w"], data["gmm_m"], data["gmm_c"])
        self.path, self.time_range = PATH, (0.0, 1.0)
        self.eps = float(data["eps"])

    def predict(self, x_t, t, **conditions):
        t_network = 1.0 - ((1.0 - t) * (1.0 - self.eps) + self.eps)
        velocity = self.inner.velocity(x_t, t_network)
        return Prediction.of_velocity(self.path, x_t, t, velocity)


def check_paths(data, cost):
    found = sorted(int(m[1]) for key in data.files if (m := re.fullmatch(r"path_K(\d+)", key)))
    assert found
    for edges in found:
        path, total = least_cost_path(cost, edges)
        assert path == data[f"path_K{edges}"].tolist()
        np.testing.assert_allclose(total, data[f"cost_K{edges}"], rtol=TOLERANCE, atol=1e-14)


def check_dp(case: File):
    data = np.load(case)
    check_paths(data, tensor(data, "cost_matrix"))


def check_trajectory(case: File):
    data = np.load(case)
    steps = int(data["K_max"])
    model, z = Rescaled(data), tensor(data, "z")
    times = Uniform().times(model, steps)
    trajectory = FineTrajectory.simulate(model, z, times, variable=Time(), conditions={})
    torch.testing.assert_close(trajectory.states, tensor(data, "traj"), rtol=0, atol=TOLERANCE)
    velocities = torch.stack([-p.velocity for p in trajectory.predictions])
    torch.testing.assert_close(velocities, tensor(data, "vel"), rtol=0, atol=TOLERANCE)
    rule = Euler(steps=1, time_grid=Uniform())
    cost = step_costs(trajectory, rule=rule, distance=squared_distance) / len(z)
    expected = tensor(data, "cost_matrix").triu(1)
    torch.testing.assert_close(cost, expected, rtol=0, atol=TOLERANCE)
    check_paths(data, cost)


def check_straightening(case: File):
    data = np.load(case)
    start, end = 1.0 - tensor(data, "t0"), 1.0 - tensor(data, "t1")
    z0, z1 = tensor(data, "z0"), tensor(data, "z1")
    gap = (end - start).reshape(-1, *([1] * (z0.ndim - 1)))
    x, e = endpoints(PATH, z0, (z1 - z0) / gap, start)
    objective = Regression("velocity", weighting=EvenWeight(), premetric=SquaredL2())
    pairs = Pairs(x=x, e=e, conditions={}, t=start)
    loss = objective.loss(Rescaled(data), pairs, start, rng=torch.Generator()).per_sample
    torch.testing.assert_close(loss.double(), tensor(data, "loss_each"), rtol=1e-6, atol=0)
    difference = Rescaled(data).velocity(z0, start) - (e - x)
    each = difference.flatten(1).square().mean(1)
    torch.testing.assert_close(each, tensor(data, "loss_each"), rtol=TOLERANCE, atol=0)
    torch.testing.assert_close(each.mean(), tensor(data, "loss"), rtol=TOLERANCE, atol=0)


CHECKS = {"dp_": check_dp, "traj_": check_trajectory, "straighten_loss": check_straightening}


@parametrize("boss")
def test_boss(case):
    dispatch(case, CHECKS)
