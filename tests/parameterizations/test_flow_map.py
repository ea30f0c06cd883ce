"""Flow map parameterizations: their jumps, and the inputs of their networks."""

import math

import pytest
import torch
from torch import nn

from flowexp.models import FlowModel
from flowexp.parameterizations import (
    DataPrediction,
    DDIMJump,
    EDMPreconditioning,
    EulerJump,
    FlowMap,
    NoisePrediction,
    ReversedVelocityPrediction,
    VelocityPrediction,
)
from flowexp.paths import VE, Cosine, Linear, Path, Trigonometric
from tests.paths.schedules import SCHEDULES

F64 = torch.float64
JUMPS = [EulerJump(), DDIMJump()]


class Conditioned(nn.Module):
    """``F = tanh(x) + c_noise``, and what it was called with."""

    def __init__(self, heads=1):
        super().__init__()
        self.heads, self.calls = heads, []

    def forward(self, x, c_noise, **conditions):
        self.calls.append((x, c_noise, conditions))
        output = torch.tanh(x) + c_noise[:, None].tanh()
        return torch.cat([output * (i + 1) for i in range(self.heads)], dim=1)


def model_of(schedule, *, of=None, jump=None, heads=1, **options):
    rule = FlowMap(
        of=of or VelocityPrediction(),
        jump=jump or EulerJump(),
        velocity_head=heads == 2,
        **options,
    )
    return FlowModel(Path(schedule), network=Conditioned(heads), parameterization=rule)


def states(n=4, dtype=F64):
    return torch.randn(n, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))


def times(schedule, *fractions):
    low, high = schedule.t_min, schedule.t_max
    return [torch.tensor(low + f * (high - low), dtype=F64) for f in fractions]


@pytest.mark.parametrize("schedule", [Linear(), Linear(sigma_min=0.01), VE()])
def test_both_jumps_agree_for_velocities_on_straight_paths(schedule):
    t, r = times(schedule, 0.8, 0.3)
    euler, ddim = (model_of(schedule, jump=jump).flow_map(states(), t, r) for jump in JUMPS)
    torch.testing.assert_close(ddim, euler, rtol=1e-12, atol=1e-12)


def test_the_ddim_jump_of_a_velocity_is_a_rotation_on_the_trigonometric_path():
    """TrigFlow: ``X = cos(a) x - sin(a) F`` with the angle a, where F = 2 v/pi."""
    t, r = times(Trigonometric(), 0.9, 0.25)
    model = model_of(Trigonometric(), jump=DDIMJump())
    velocity, angle = model.average_velocity(states(), t, t), math.pi / 2 * (t - r)
    expected = torch.cos(angle) * states() - torch.sin(angle) * velocity * 2 / math.pi
    torch.testing.assert_close(model.flow_map(states(), t, r), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("of", [VelocityPrediction(), DataPrediction(), EDMPreconditioning()])
@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_jumps_go_to_the_state_that_data_and_noise_make(name, of):
    """``X_{t->r} = alpha_r D + sigma_r E``, which at the data end is D."""
    schedule = SCHEDULES[name]
    model = model_of(schedule, of=of, jump=DDIMJump())
    for fractions in ((1.0, 0.5), (0.4, 0.399), (0.3, 0.3 - 1e-9)):
        t, r = times(schedule, *fractions)
        prediction, c = model.predict(states(), t), schedule.coefficients(r)
        expected = c.alpha * prediction.data + c.sigma * prediction.noise
        found = model.flow_map(states(), t, r)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
        if schedule.coefficients(r * 0.0).sigma == 0.0:
            ends = model.flow_map(states(), t, r * 0.0)
            torch.testing.assert_close(ends, prediction.data, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_without_a_gap_the_average_velocity_is_the_velocity(name, jump):
    schedule = SCHEDULES[name]
    model = model_of(schedule, jump=jump)
    for t in (*times(schedule, 0.0, 0.4, 1.0), torch.stack(times(schedule, 0.0, 0.2, 0.6, 1.0))):
        found, velocity = model.average_velocity(states(), t, t), model.velocity(states(), t)
        exact = {} if isinstance(jump, DDIMJump) else {"rtol": 0.0, "atol": 0.0}
        torch.testing.assert_close(found, velocity, **(exact or {"rtol": 1e-9, "atol": 1e-9}))


def test_a_jump_of_no_length_stays():
    t = torch.tensor(0.4, dtype=F64)
    for jump in JUMPS:
        assert torch.equal(model_of(Linear(), jump=jump).flow_map(states(), t, t), states())


def test_ddim_jumps_are_finite_at_the_data_end():
    zero = torch.zeros((), dtype=F64)
    model = model_of(Linear(), jump=DDIMJump())
    torch.testing.assert_close(
        model.average_velocity(states(), zero, zero), model.velocity(states(), zero)
    )


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("schedule", [Linear(), VE(), Cosine()])
def test_float32_states_give_what_float64_states_give(schedule, jump):
    model = model_of(schedule, of=EDMPreconditioning(), jump=jump)
    t, r = times(schedule, 1.0, 0.1)
    x = states() * schedule.coefficients(t).sigma
    single, double = (model.flow_map(state, t, r) for state in (x.float(), x))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("jump", JUMPS)
def test_times_are_numbers_or_one_per_row(jump):
    model = model_of(VE(), of=EDMPreconditioning(), jump=jump)
    t, r = torch.tensor([80.0, 3.0, 1.0, 0.01]), torch.tensor([0.002, 0.0, 1.0, 0.003])
    together = model.flow_map(states(), t, r)
    for row, (x, start, end) in enumerate(zip(states().split(1), t, r, strict=True)):
        torch.testing.assert_close(together[row : row + 1], model.flow_map(x, start, end))


@pytest.mark.parametrize("of", [NoisePrediction(), DataPrediction(), ReversedVelocityPrediction()])
def test_it_is_defined_where_its_prediction_is(of):
    rule = FlowMap(of=of, jump=EulerJump())
    assert rule.time_range(Linear()) == of.time_range(Linear())
    model = FlowModel(Path(Linear()), network=Conditioned(), parameterization=rule)
    assert model.time_range == of.time_range(Linear())
    for jump in JUMPS:
        model = model_of(Linear(), of=of, jump=jump)
        low, high = (torch.tensor(end, dtype=F64) for end in model.time_range)
        assert model.flow_map(states(), high, low).isfinite().all()


def test_the_network_receives_gap_and_end_in_unit_time():
    model = model_of(VE(), of=EDMPreconditioning(), conditions_on=["gap", "end", "guidance_scale"])
    t, r = torch.tensor([3.0, 1.0], dtype=F64), torch.tensor([1.0, 0.0], dtype=F64)
    scale = torch.tensor([1.0, 4.0], dtype=F64)
    model.average_velocity(states(2), t, r, guidance_scale=scale)
    scalars = model.network.calls[0][2]["scalars"]
    assert set(scalars) == {"gap", "end", "guidance_scale"}
    torch.testing.assert_close(scalars["gap"], torch.tensor([0.25, 0.5], dtype=F64))
    torch.testing.assert_close(scalars["end"], torch.tensor([0.5, 0.0], dtype=F64))
    torch.testing.assert_close(scalars["guidance_scale"], torch.tensor([0.0, 0.75], dtype=F64))


def test_a_consistency_model_has_no_second_time_as_input():
    model = model_of(VE(), of=EDMPreconditioning(), jump=DDIMJump(), conditions_on=[])
    assert model.is_flow_map
    assert model.maps_to_data_only
    t = torch.tensor(3.0, dtype=F64)
    ends = model.flow_map(states(), t, t * 0.0)
    assert "scalars" not in model.network.calls[0][2]
    torch.testing.assert_close(ends, model.denoise(states(), t), rtol=1e-12, atol=1e-12)


def test_a_velocity_head_is_not_the_average():
    model = model_of(Linear(), heads=2)
    t, r = torch.tensor(0.8, dtype=F64), torch.tensor(0.2, dtype=F64)
    average, velocity = model.with_velocity_head(states(), t, r)
    assert len(model.network.calls) == 1
    torch.testing.assert_close(velocity, 2 * average)
    torch.testing.assert_close(model.average_velocity(states(), t, r), average)
    one = model_of(Linear())
    average, velocity = one.with_velocity_head(states(), t, r)
    torch.testing.assert_close(velocity, one.average_velocity(states(), t, t))


def test_unknown_inputs_are_refused():
    with pytest.raises(
        ValueError, match="conditions_on has speed; expected some of gap, end, guidance"
    ):
        FlowMap(of=VelocityPrediction(), jump=EulerJump(), conditions_on=["gap", "speed"])
