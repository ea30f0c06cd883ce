"""Bridges: velocity is the derivative, limits, marginal law."""

import pytest
import torch

from flowexp.paths import BrownianNoise, ConstantNoise, Linear, Path, Trigonometric, bridge_point

F64 = torch.float64


def batch(n=6):
    rng = torch.Generator().manual_seed(0)
    x, e, eps = torch.randn(3, n, 4, generator=rng, dtype=F64)
    return x, e, eps, torch.linspace(0.1, 0.9, n, dtype=F64)


@pytest.mark.parametrize("schedule", [Linear(), Trigonometric()])
@pytest.mark.parametrize("noise", [ConstantNoise(0.3), BrownianNoise(0.7, guard=0.0)])
def test_velocity_is_the_time_derivative(schedule, noise):
    x, e, eps, t = batch()
    path, h = Path(schedule), 1e-6
    point = bridge_point(path, noise, x=x, e=e, t=t, eps=eps)
    ahead = bridge_point(path, noise, x=x, e=e, t=t + h, eps=eps).x_t
    behind = bridge_point(path, noise, x=x, e=e, t=t - h, eps=eps).x_t
    torch.testing.assert_close(point.velocity, (ahead - behind) / (2 * h), rtol=1e-7, atol=1e-7)


def test_no_noise_is_the_path_itself():
    x, e, eps, t = batch()
    plain = Path(Linear()).point(x, e, t)
    for noise in (ConstantNoise(0.0), BrownianNoise(0.0)):
        point = bridge_point(Path(Linear()), noise, x=x, e=e, t=t, eps=eps)
        assert torch.equal(point.x_t, plain.x_t)
        assert torch.equal(point.velocity, plain.velocity)


def test_brownian_bridge_is_pinned_and_finite_at_both_ends():
    x, e, eps, _ = batch(2)
    ends = torch.tensor([0.0, 1.0], dtype=F64)
    point = bridge_point(Path(Linear()), BrownianNoise(0.7), x=x, e=e, t=ends, eps=eps)
    assert torch.equal(point.x_t, torch.stack([x[0], e[1]]))
    assert point.velocity.isfinite().all()


def test_brownian_bridge_has_no_noise_beyond_the_ends():
    t = torch.tensor([-0.1, 1.2], dtype=torch.float64)
    law = BrownianNoise(0.5)
    assert law.std(t).tolist() == [0.0, 0.0]
    assert (law.d_std(t) == 0.0).all()


def test_score_weight_turns_the_score_into_the_drawn_noise():
    # weight * score = 2 gamma / s^2 * (-eps / gamma) = -2 eps / s^2
    t = torch.tensor([0.2, 0.5], dtype=F64)
    noise = BrownianNoise(0.5, guard=0.0)
    torch.testing.assert_close(
        noise.score_weight(t) / noise.std(t), torch.full((2,), 8.0, dtype=F64)
    )


@pytest.mark.parametrize("law", [ConstantNoise, BrownianNoise])
def test_negative_scale_is_named(law):
    with pytest.raises(ValueError, match="scale"):
        law(-1.0)
    with pytest.raises(ValueError, match="guard"):
        law(1.0, guard=-1.0)
