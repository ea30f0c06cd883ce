"""The analytic two-time network of the flow-map goldens, as a model in float64."""

import numpy as np
import torch

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.paths import Linear, Path, Prediction, Trigonometric

PATHS = {"linear": Linear, "Linear": Linear, "trig": Trigonometric, "Trig": Trigonometric}
PARAMETERS = ("W", "b", "c", "E")


def load(case):
    with np.load(case, allow_pickle=False) as stored:
        return {key: np.array(stored[key]) for key in stored.files}


def tensor(g, key):
    return torch.from_numpy(g[key])


class GoldenFlowMap(Model):
    """``u(z,r,t,y) = 1.3 tanh(z W^T + b t + E_y)(1 + t^2/2) + c sin(2(t-r))``; row -1 of E = null.

    Labels are int64 with -1 for "no label". ``averages`` are further models by name, for targets.
    """

    is_flow_map = True
    time_range = (0.0, 1.0)

    def __init__(self, g, *, suffix="", path=None, averages=None):
        self.path = path or Path(Linear())
        self.parameters = {
            name: tensor(g, name + suffix).clone().requires_grad_()
            for name in PARAMETERS
            if name + suffix in g
        }
        self.averages = averages or {}

    def average_velocity(self, x_t, t, r, **conditions):
        p = self.parameters
        t, r = (expand_as(torch.as_tensor(time, dtype=torch.float64), x_t) for time in (t, r))
        inner = x_t @ p["W"].T + p["b"] * t
        if "E" in p:
            labels = conditions.get("labels")
            labels = torch.full((len(x_t),), -1) if labels is None else labels
            inner = inner + p["E"][labels]
        return 1.3 * torch.tanh(inner) * (1 + t**2 / 2) + p["c"] * torch.sin(2 * (t - r))

    def predict(self, x_t, t, **conditions):
        velocity = self.average_velocity(x_t, t, t, **conditions)
        return Prediction.of_velocity(self.path, x_t, t, velocity)

    def average(self, name):
        return self.averages[name]

    def gradients(self, loss):
        """``d loss / d parameter`` under the names of the goldens, ``g_W`` ..., 0 where unused."""
        values = list(self.parameters.values())
        found = torch.autograd.grad(loss, values, allow_unused=True)
        return {
            f"g_{name}": torch.zeros_like(value) if gradient is None else gradient
            for (name, value), gradient in zip(self.parameters.items(), found, strict=True)
        }
