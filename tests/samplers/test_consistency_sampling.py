"""Multistep sampling of consistency models: evaluations, noise, and a point mass."""

import pytest
import torch

from flowexp.models import Model
from flowexp.paths import VE, Linear, Path, Prediction
from flowexp.samplers import FlowMapSampler, Given, Uniform
from flowexp.seeding import SampleNoise

POINT = torch.tensor([0.3, -0.7], dtype=torch.float64)


class PointMass(Model):
    """The exact map of data that are one point; it counts its calls and keeps their states."""

    is_flow_map = True
    maps_to_data_only = True

    def __init__(self, schedule):
        self.path = Path(schedule)
        self.time_range = (schedule.t_min, schedule.t_max)
        self.received = []

    def predict(self, x_t, t, **conditions):
        return Prediction.of_data(self.path, x_t, t, POINT.expand_as(x_t))

    def flow_map(self, x_t, t, r, **conditions):
        assert float(r) == 0.0
        self.received.append((float(t), x_t))
        return POINT.expand_as(x_t).clone()

    def average_velocity(self, x_t, t, r, **conditions):
        raise AssertionError("the sampler jumps by flow_map")


@pytest.mark.parametrize("mid", [[], [0.821], [24.4, 5.84, 0.9]], ids=len)
def test_a_point_mass_is_reached_on_every_grid_with_one_call_per_step(mid):
    model = PointMass(VE())
    times = [80.0, *mid, 0.0]
    steps = len(times) - 1
    sampler = FlowMapSampler(steps=steps, time_grid=Given(values=times), noise="restart")
    e = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    samples = sampler.sample(model, e, noise=SampleNoise(range(4)))
    assert torch.equal(samples.x, POINT.expand(4, 2))
    assert samples.nfe.tolist() == [steps] * 4
    assert [t for t, _ in model.received] == times[:-1]
    torch.testing.assert_close(model.received[0][1], 80.0 * e)


def test_a_restart_is_fresh_noise_around_the_jumps_end_that_belongs_to_the_sample():
    model = PointMass(Linear())
    sampler = FlowMapSampler(steps=2, time_grid=Uniform(), noise="restart")
    e = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sampler.sample(model, e, noise=SampleNoise([5, 6, 7]))
    t, x = model.received[1]
    fresh = SampleNoise([5, 6, 7])(0, x)
    torch.testing.assert_close(x, (1.0 - t) * POINT + t * fresh)
    sampler.sample(model, e[1:], noise=SampleNoise([6, 7]))
    assert torch.equal(model.received[3][1], x[1:])
