"""Networks of rectified flow's authors, whose time and velocity run the other way."""

import torch
from torch import nn

from flowexp.models import FlowModel
from flowexp.parameterizations.direct import ReversedVelocityPrediction
from flowexp.paths import Linear, Path


class Source(nn.Module):
    """The authors' network for one pair: v_src = x - e, conditioned on 999 t_src."""

    def __init__(self, x, e):
        super().__init__()
        self.x, self.e, self.received = x, e, None

    def forward(self, x_t, c_noise):
        self.received = c_noise
        return (self.x - self.e).expand_as(x_t)


def test_velocity_data_and_noise_of_one_pair():
    x, e = torch.randn(2, 1, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    network = Source(x, e)
    model = FlowModel(
        Path(Linear()),
        network=network,
        parameterization=ReversedVelocityPrediction(time_scale=999.0),
    )
    for t in (0.0, 0.25, 1.0):
        time = torch.tensor(t, dtype=torch.float64)
        found = model.predict((1 - t) * x + t * e, time)
        torch.testing.assert_close(found.velocity, e - x)
        torch.testing.assert_close(found.data, x)
        torch.testing.assert_close(found.noise, e)
        torch.testing.assert_close(network.received, torch.tensor([999.0 * (1 - t)]))
