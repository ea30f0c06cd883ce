"""InstaFlow (Liu et al.): guided Euler of the authors' pipeline.

Their guidance is off for scales up to 1, where one conditional call is made per step; that is
flowexp's scale 1. flowexp itself interpolates between unconditional and conditional below 1.
"""

import re

import numpy as np
import torch

from flowexp.guidance import ClassifierFree
from flowexp.models import Model
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import Linear, Path, Prediction
from flowexp.samplers import Euler, Uniform
from tests.goldens.harness import dispatch, parametrize
from tests.samplers.closed_forms import MixtureModel

LABEL_SCALE = 1000.0
RUN = re.compile(r"N(\d+)_g([0-9p]+)_out")


def load(case):
    with np.load(case, allow_pickle=False) as stored:
        return {key: np.array(stored[key]) for key in stored.files}


def tensor(g, key):
    return torch.from_numpy(g[key])


class Fields(Model):
    """The analytic fields of a label and of no label; keeps the times and sizes of its calls."""

    path, time_range = Path(Linear()), (0.0, 1.0)

    def __init__(self, g):
        self.conditional, self.without = (self._field(g, who) for who in ("cond", "uncond"))
        self.received, self.rows = [], []

    @staticmethod
    def _field(g, who):
        mu, s = tensor(g, f"{who}_mu").flatten(1), tensor(g, f"{who}_s")
        return MixtureModel(Path(Linear()), g[f"{who}_w"], mu, s[:, None].expand_as(mu))

    def predict(self, x_t, t, *, labels):
        schedule = self.path.schedule
        head = VelocityPrediction(time_scale=LABEL_SCALE)
        self.received.append(head.inputs(schedule, t, schedule.coefficients(t)).c_noise)
        self.rows.append(len(x_t))
        given = (labels >= 0).reshape(-1, *[1] * (x_t.ndim - 1))
        fields = (field.velocity(x_t, t) for field in (self.conditional, self.without))
        return Prediction.of_velocity(self.path, x_t, t, torch.where(given, *fields))


def sampled(g, *, steps, scale):
    fields = Fields(g)
    guided = ClassifierFree(scale=scale).wrap(fields)
    z = tensor(g, "z")
    labels = torch.zeros(len(z), dtype=torch.int64)
    samples = Euler(steps=steps, time_grid=Uniform()).sample(guided, z, labels=labels)
    return samples, fields


def check_euler_cfg(case):
    g = load(case)
    runs = [match for key in g if (match := RUN.fullmatch(key))]
    assert len(runs) == sum(key.endswith("_out") for key in g)
    for match in runs:
        steps, scale = int(match[1]), float(match[2].replace("p", "."))
        samples, fields = sampled(g, steps=steps, scale=max(scale, 1.0))
        out = tensor(g, match.group())
        torch.testing.assert_close(samples.x, out, rtol=0, atol=1e-6)
        c_noise = torch.stack(fields.received)
        expected = tensor(g, match.group().replace("_out", "_label"))
        torch.testing.assert_close(c_noise, expected, rtol=1e-6, atol=1e-4)
        doubled = 2 if scale > 1.0 else 1
        assert samples.nfe.unique().tolist() == [doubled * steps]
        assert fields.rows == [doubled * len(out)] * steps


CHECKS = {"euler_cfg_": check_euler_cfg}


@parametrize("instaflow")
def test_case(case):
    dispatch(case, CHECKS)
