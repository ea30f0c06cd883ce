"""Models and networks whose answers are known."""

import torch
from torch import nn

from flowexp.models import FlowModel, Model
from flowexp.paths import Prediction

MAKERS = {
    "velocity": Prediction.of_velocity,
    "data": Prediction.of_data,
    "noise": Prediction.of_noise,
}


class Fixed(Model):
    """Predicts a given tensor, as velocity, data or noise."""

    def __init__(self, path, kind, output):
        self.path, self.kind, self.output = path, kind, output
        self.time_range = (path.schedule.t_min, path.schedule.t_max)

    def predict(self, x_t, t, **conditions):
        return MAKERS[self.kind](self.path, x_t, t, self.output.to(x_t.dtype))


class TinyNetwork(nn.Module):
    """A seeded two-layer perceptron of state and time; labels are ignored."""

    def __init__(self, features=6, seed=0):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(features + 1, 16, generator=rng) / features**0.5)
        self.second = nn.Parameter(torch.randn(16, features, generator=rng) / 4)

    def forward(self, x, c_noise, **conditions):
        flat = torch.cat([x.flatten(1), c_noise[:, None]], dim=1)
        return (torch.tanh(flat @ self.first) @ self.second).reshape(x.shape)


def tiny_model(path, parameterization, seed=0):
    return FlowModel(path, network=TinyNetwork(seed=seed), parameterization=parameterization)
