"""RF++'s update rule, and the Euler method of rectified flow's code."""

from itertools import pairwise

import pytest
import torch

from flowexp.models import Model
from flowexp.paths import VE, VP, Linear, Path, Prediction
from flowexp.samplers import (
    DDIM,
    DormandPrince,
    Euler,
    Heun,
    InsetUniform,
    LaggedEuler,
    Natural,
    Reinterpolation,
    Uniform,
)
from tests.samplers.closed_forms import MixtureModel

W, M, C = [0.3, 0.7], [[0.5, -0.4, 0.1], [-0.6, 0.2, 0.9]], [[0.2, 0.1, 0.3], [0.05, 0.3, 0.2]]


def mixture(schedule=None, **kwargs):
    return MixtureModel(Path(schedule or Linear()), W, M, C, **kwargs)


def draws(n=4):
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Straight(Model):
    """The velocity of the pairs ``x = A e + b`` with A diagonal and positive: straight lines."""

    def __init__(self):
        self.path, self.time_range = Path(Linear()), (0.0, 1.0)
        self.a = torch.tensor([0.2, 1.5, 0.7], dtype=torch.float64)
        self.b = torch.tensor([0.3, -0.4, 0.0], dtype=torch.float64)

    def predict(self, x_t, t, **conditions):
        e = (x_t - (1.0 - t) * self.b) / ((1.0 - t) * self.a + t)
        return Prediction.of_velocity(self.path, x_t, t, e - (self.a * e + self.b))


@pytest.mark.parametrize("heun", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_equals_euler_on_a_straight_flow_which_one_step_solves(steps, heun):
    model, e = Straight(), draws()
    new = Reinterpolation(steps=steps, time_grid=Uniform(), heun=heun).sample(model, e).x
    old = Euler(steps=steps, time_grid=Uniform()).sample(model, e).x
    torch.testing.assert_close(new, old, rtol=0, atol=1e-12)
    torch.testing.assert_close(new, model.a * e + model.b, rtol=0, atol=1e-12)


def test_first_step_from_pure_noise_is_eulers_and_later_ones_are_not():
    e, states = draws(), {}
    for build in (DDIM, Euler, Reinterpolation):
        seen = states[build] = []
        build(steps=4, time_grid=Natural()).sample(
            mixture(), e, on_step=lambda t, x, seen=seen: seen.append(x)
        )
    for other in (DDIM, Euler):
        for i in (0, 1):
            torch.testing.assert_close(states[other][i], states[Reinterpolation][i])
        assert (states[other][2] - states[Reinterpolation][2]).abs().max() > 1e-3


@pytest.mark.parametrize("schedule", [Linear(), VE(t_max=20.0), VP(t_min=1e-3)])
def test_every_step_interpolates_the_predicted_data_with_the_first_draw(schedule):
    model, e, seen = mixture(schedule), draws(), []
    Reinterpolation(steps=4, time_grid=Natural()).sample(
        model, e, on_step=lambda t, x: seen.append((t, x))
    )
    for (t, x), (t_next, x_next) in pairwise(seen):
        c = schedule.coefficients(t_next)
        expected = c.alpha * model.denoise(x, t) + c.sigma * e
        torch.testing.assert_close(x_next, expected)


def test_heun_counts_and_first_step_is_half_of_both_velocities():
    model, e, seen = mixture(), draws(), []
    sampler = Reinterpolation(steps=3, time_grid=Uniform(), heun=True)
    samples = sampler.sample(model, e, on_step=lambda t, x: seen.append(x))
    assert samples.nfe.tolist() == [5] * 4
    heun = []
    Heun(steps=3, time_grid=Uniform()).sample(mixture(), e, on_step=lambda t, x: heun.append(x))
    torch.testing.assert_close(seen[1], heun[1])


def test_lagged_euler_conditions_on_less_and_steps_as_far():
    model, e, seen = mixture(), draws(), []
    sampler = LaggedEuler(steps=4, time_grid=Uniform(), lag=1e-3)
    samples = sampler.sample(model, e, on_step=lambda t, x: seen.append(x))
    received = [float(t) for t in model.times]
    assert received == pytest.approx([1 - (i / 4 * 0.999 + 1e-3) for i in range(4)])
    torch.testing.assert_close(seen[0], e)
    first = mixture().velocity(e, torch.tensor(0.999, dtype=torch.float64))
    torch.testing.assert_close(seen[1], e - 0.25 * first)
    assert samples.nfe.tolist() == [4] * 4
    plain = LaggedEuler(steps=4, time_grid=Uniform(), lag=0.0).sample(mixture(), e).x
    torch.testing.assert_close(plain, Euler(steps=4, time_grid=Uniform()).sample(mixture(), e).x)


def test_lag_does_not_leave_the_range_of_the_network():
    model = mixture(time_range=(0.25, 1.0))
    LaggedEuler(steps=4, time_grid=Uniform(), lag=0.1).sample(model, draws())
    assert float(min(model.times)) == 0.25
    with pytest.raises(ValueError, match="lag is 1"):
        LaggedEuler(steps=4, time_grid=Uniform(), lag=1.0)


def test_published_adaptive_start_puts_the_draw_itself_at_its_time():
    model, e, seen = mixture(), draws(), []
    DormandPrince(start_time=0.999, per_sample=False).sample(
        model, e, on_step=lambda t, x: seen.append((float(t), x))
    )
    assert seen[0][0] == 0.999
    assert torch.equal(seen[0][1], e)
    with pytest.raises(ValueError, match=r"start_time is 0.999.*0.9\]"):
        DormandPrince(start_time=0.999).check(mixture(time_range=(0.0, 0.9)))
    with pytest.raises(ValueError, match="start_time is 0"):
        DormandPrince(start_time=0.0)


def test_grid_of_rfpp_starts_a_margin_inside():
    model, e = mixture(), draws()
    x = Reinterpolation(steps=1, time_grid=InsetUniform()).sample(model, e).x
    start = (1.0 - 1e-5) * e
    t = torch.tensor(1.0 - 1e-5, dtype=torch.float64)
    torch.testing.assert_close(x, start - t * mixture().velocity(start, t))
