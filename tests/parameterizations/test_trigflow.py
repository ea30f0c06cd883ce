"""TrigFlow: every path as a quarter circle; EDM's networks; jumps that are rotations."""

import math

import pytest
import torch
from torch import nn

from flowexp.broadcast import expand_as
from flowexp.models import FlowModel
from flowexp.networks.unet import UNet
from flowexp.parameterizations import (
    DDIMJump,
    EDMPreconditioning,
    FlowMap,
    QuarterCircle,
    TrigFlow,
    time_at_angle,
)
from flowexp.paths import VE, VP, Linear, Path, Trigonometric
from flowexp.samplers import EDMGrid, EDMHeun

F64 = torch.float64
SCHEDULES = [VE(t_max=1e4), VP(), Linear(), Trigonometric()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_angle_of_every_path_round_trips(schedule):
    theta = torch.linspace(0.01, 1.5, 40, dtype=F64)
    t = time_at_angle(schedule, theta, sigma_data=0.5)
    circle = QuarterCircle(schedule.coefficients(t), 0.5)
    torch.testing.assert_close(circle.angle, theta, rtol=0, atol=1e-12)
    torch.testing.assert_close(circle.cos, theta.cos(), rtol=0, atol=1e-12)
    torch.testing.assert_close(circle.sin, theta.sin(), rtol=0, atol=1e-12)


def test_the_time_of_the_right_angle_is_the_end_of_the_path():
    right = torch.tensor([math.pi / 2], dtype=F64)
    for schedule in (Linear(), Trigonometric()):
        assert time_at_angle(schedule, right, sigma_data=0.5).item() == 1.0


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_states_and_velocities_are_those_of_the_circle(schedule):
    """x_theta = cos x + sin sd e, and its derivative in theta."""
    rng = torch.Generator().manual_seed(0)
    x, e = torch.randn(2, 5, 3, generator=rng, dtype=F64)
    theta = torch.tensor([0.05, 0.4, 0.9, 1.3, 1.5], dtype=F64)
    t = time_at_angle(schedule, theta, sigma_data=0.5)
    point = Path(schedule).point(x, e, t)
    circle = QuarterCircle(schedule.coefficients(t), 0.5)
    cos, sin = theta.cos()[:, None], theta.sin()[:, None]
    torch.testing.assert_close(circle.state(point.x_t), cos * x + sin * 0.5 * e)
    velocity = circle.velocity(point.x_t, point.velocity)
    torch.testing.assert_close(velocity, cos * 0.5 * e - sin * x)
    F = circle.output(point.x_t, x)
    torch.testing.assert_close(cos * circle.state(point.x_t) - sin * 0.5 * F, x)


def network():
    torch.manual_seed(0)
    net = UNet(in_channels=1, out_channels=1, img_resolution=8, model_channels=4)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net.eval()


class Negative(nn.Module):
    """A TrigFlow network made from one of EDM's, whose time input is ln(sigma)/4."""

    def __init__(self, edm):
        super().__init__()
        self.edm = edm

    def forward(self, x, theta):
        return -self.edm(x, (torch.log(0.5 * torch.tan(theta.double())) / 4).float())


def test_networks_of_edm_are_networks_of_trigflow():
    """F_trig = -F_edm: the same samples of EDM's sampler, from the same weights."""
    net, path = network(), Path(VE())
    sampler = EDMHeun(steps=6, time_grid=EDMGrid())
    e = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    samples = [
        sampler.sample(FlowModel(path, network=own, parameterization=rule), e).x
        for own, rule in (
            (net, EDMPreconditioning()),
            (Negative(net), TrigFlow()),
        )
    ]
    # theta in float32 determines sigma = 80 to 2e-5 of it.
    torch.testing.assert_close(samples[1], samples[0], rtol=0, atol=1e-4)


def test_predictions_are_finite_at_pure_noise():
    rule = TrigFlow(sigma_max=math.inf)
    model = FlowModel(Path(Trigonometric()), network=network(), parameterization=rule)
    assert model.time_range[1] == 1.0
    e = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=F64)
    found = model.predict(e, torch.ones(2, dtype=F64))
    for form in (found.data, found.velocity, found.noise):
        assert bool(form.isfinite().all())
    F = model.network(e.float(), torch.full((2,), math.pi / 2)).double()
    torch.testing.assert_close(found.data, -0.5 * F)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_jumps_are_rotations_and_end_in_the_data(schedule):
    """DDIM between two angles: cos(a - b) x - sin(a - b) sd F."""
    rule = FlowMap(of=TrigFlow(), jump=DDIMJump(), conditions_on=["gap"])
    torch.manual_seed(0)
    net = UNet(
        in_channels=1, out_channels=1, img_resolution=8, model_channels=4, scalars=["gap"]
    ).eval()
    nn.init.normal_(net.head.conv1.weight)
    model = FlowModel(Path(schedule), network=net, parameterization=rule)
    theta, later = (torch.tensor(v, dtype=F64) for v in ([1.4, 0.9, 0.3], [0.8, 0.85, 0.1]))
    t, r = (time_at_angle(schedule, a, sigma_data=0.5) for a in (theta, later))
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=F64)
    start, end = (QuarterCircle(schedule.coefficients(time), 0.5) for time in (t, r))
    jumped = end.state(model.flow_map(x, t, r))
    # F of the same call: the jump to the data is another one, since F is conditioned on r.
    gap = {"gap": schedule.unit_time(t) - schedule.unit_time(r)}
    inputs = rule.inputs(schedule, t, start.c)
    scaled = (x * expand_as(inputs.c_in, x)).float()
    F = -rule.evaluate(net, scaled, inputs.c_noise.float(), gap).double()
    turn = theta - later
    expected = expand_as(turn.cos(), x) * start.state(x) - expand_as(turn.sin(), x) * 0.5 * F
    torch.testing.assert_close(jumped, expected, rtol=1e-9, atol=1e-9)


def test_the_consistency_function_is_the_identity_at_the_data():
    rule = FlowMap(of=TrigFlow(), jump=DDIMJump(), conditions_on=[])
    model = FlowModel(Path(Trigonometric()), network=network(), parameterization=rule)
    assert model.maps_to_data_only
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=F64)
    change = [
        (model.flow_map(x, t, 0.0 * t) - x).abs().max()
        for t in torch.tensor([[1e-2, 1e-2], [1e-4, 1e-4], [1e-6, 1e-6]], dtype=F64)
    ]
    assert change[1] < 0.05 * change[0]
    assert change[2] < 1e-4


@pytest.mark.parametrize("wrong", [{"sigma_data": 0.0}, {"sigma_min": 0.0}, {"sigma_max": 0.001}])
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrigFlow(**wrong)
