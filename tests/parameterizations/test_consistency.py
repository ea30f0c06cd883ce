"""Boundary scalings of consistency models: identity at the boundary, modes, other paths."""

import pytest
import torch

from flowexp.models import FlowModel
from flowexp.parameterizations import (
    ConsistencyPreconditioning,
    DDIMJump,
    EDMPreconditioning,
    FlowMap,
)
from flowexp.paths import VE, VP, Linear, Path, Trigonometric
from tests.objectives.models import TinyNetwork

F64 = torch.float64
PATHS = [VE(), Linear(), VP(), Trigonometric()]


def model(schedule, **options):
    rule = FlowMap(of=ConsistencyPreconditioning(**options), jump=DDIMJump(), conditions_on=[])
    return FlowModel(Path(schedule), network=TinyNetwork(), parameterization=rule)


def states(n, features=6):
    return torch.randn(n, features, generator=torch.Generator().manual_seed(0), dtype=F64)


@pytest.mark.parametrize("schedule", PATHS, ids=lambda s: type(s).__name__)
def test_the_shifted_map_is_the_identity_at_sigma_min(schedule):
    """Up to alpha: it gives x_t / alpha, the state without its signal's scale."""
    shifted = model(schedule, shift_in_training=True, sigma_min=0.01)
    t = schedule.time_at_nsr(torch.full((3,), 0.01, dtype=F64))
    x = states(3)
    expected = x / schedule.coefficients(t).alpha[:, None]
    torch.testing.assert_close(shifted.denoise(x, t), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", [VE(), Linear(), Trigonometric()])
@pytest.mark.parametrize("shift", [False, True])
def test_the_map_from_0_to_0_is_the_identity_exactly(schedule, shift):
    x, zero = states(2), torch.zeros(2, dtype=F64)
    made = model(schedule, shift_in_training=shift)
    assert torch.equal(made.flow_map(x, zero, zero), x)
    assert made.average_velocity(x, zero, zero).isfinite().all()


@pytest.mark.parametrize("schedule", PATHS, ids=lambda s: type(s).__name__)
def test_the_map_to_the_data_is_the_denoiser_and_the_same_on_every_path(schedule):
    level = torch.tensor([0.05, 0.7, 12.0], dtype=F64)
    x = states(3)
    on_ve = model(VE(), shift_in_training=True).denoise(x, level)
    t = schedule.time_at_nsr(level)
    here = model(schedule, shift_in_training=True)
    scaled = schedule.coefficients(t).alpha[:, None] * x
    torch.testing.assert_close(here.denoise(scaled, t), on_ve, rtol=1e-5, atol=1e-6)
    end = here.flow_map(scaled, t, torch.zeros_like(t))
    torch.testing.assert_close(end, here.denoise(scaled, t), rtol=1e-8, atol=1e-9)


def test_training_and_sampling_have_their_own_scalings():
    level, x = torch.tensor([0.01, 0.5], dtype=F64), states(2)
    ect, plain = model(VE()), model(VE(), shift_in_sampling=False)
    edm = FlowModel(Path(VE()), network=TinyNetwork(), parameterization=EDMPreconditioning())
    assert torch.equal(ect.denoise(x, level), edm.denoise(x, level))
    for one in (ect, plain, edm):
        one.network.eval()
    assert torch.equal(plain.denoise(x, level), edm.denoise(x, level))
    assert not torch.allclose(ect.denoise(x, level), edm.denoise(x, level))
    prepared = ect.at(level[:, None].expand(2, 2))[0](x)
    torch.testing.assert_close(prepared.data, ect.denoise(x, level[:1]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_output_s_scale_is_that_of_the_predictions(training):
    """``|du/dF|``: the average velocity moves so far with the network's output."""
    made, x = (
        model(VE(), shift_in_sampling=False, shift_in_training=True, sigma_min=0.05),
        states(3),
    )
    made.network.train(training)
    t, zero = torch.tensor([0.1, 0.7, 12.0], dtype=F64), torch.zeros(3, dtype=F64)
    before, moved = made.average_velocity(x, t, zero), made.network.forward
    made.network.forward = lambda *inputs, **named: moved(*inputs, **named) + 1.0
    change = (made.average_velocity(x, t, zero) - before).abs().mean(1)
    torch.testing.assert_close(change, made.output_scale(t, zero), rtol=1e-5, atol=0.0)


def test_predictions_of_the_shifted_scalings_agree_with_each_other():
    for schedule in PATHS:
        made, x = model(schedule, shift_in_training=True), states(3)
        t = schedule.time_at_nsr(torch.tensor([0.05, 0.7, 12.0], dtype=F64))
        found, c = made.predict(x, t), schedule.coefficients(t)
        alpha, sigma, d_alpha, d_sigma = (
            v[:, None] for v in (c.alpha, c.sigma, c.d_alpha, c.d_sigma)
        )
        torch.testing.assert_close(alpha * found.data + sigma * found.noise, x)
        velocity = d_alpha * found.data + d_sigma * found.noise
        torch.testing.assert_close(found.velocity, velocity)
