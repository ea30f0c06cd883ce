"""The field parameterization: ratio, replaced z part, channels."""

import pytest
import torch

from flowexp.parameterizations import PoissonFieldPrediction, normalized_field
from flowexp.paths import VE, Linear, Path, Prediction


def normal(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def prediction(path, x_t, t, displacement, *, z_exp=5.0, extra=True):
    """What the exact normalised field of a displacement ``D - x_t/alpha`` is turned into."""
    c = path.schedule.coefficients(t)
    along_x, along_z = normalized_field(displacement, c.sigma / c.alpha, gamma=5.0)
    wide = along_z.reshape(-1, 1, 1, 1).expand_as(along_x[:, :1])
    output = torch.cat([along_x, wide], dim=1) if extra else along_x
    conversion = PoissonFieldPrediction(z_exp=z_exp).conversion(c)
    return Prediction(path, x_t, output, conversion)


@pytest.mark.parametrize("schedule", [VE(), Linear()])
def test_field_becomes_noise_data_and_velocity(schedule):
    path = Path(schedule, D=1)
    t = schedule.time_at_nsr(torch.tensor([6.0, 20.0, 60.0], dtype=torch.float64))
    x, e = normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1)
    point = path.point(x, e, t)
    alpha = path.schedule.coefficients(t).alpha.reshape(-1, 1, 1, 1)
    found = prediction(path, point.x_t, t, x - point.x_t / alpha)
    # the guard of 1e-5 in the denominator limits the agreement
    torch.testing.assert_close(found.noise, e, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.data, x, rtol=0, atol=5e-3)
    torch.testing.assert_close(found.velocity, point.velocity, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("extra", [True, False])
def test_below_z_exp_the_z_part_follows_from_the_length(extra):
    """Exact for z far below the distance a, but for the guard of 1e-5 in the denominator."""
    path = Path(VE(), D=1)
    t = torch.full((4,), 0.05, dtype=torch.float64)
    x, e = normal(4, 1, 3, 3), 100 * normal(4, 1, 3, 3, seed=1)
    point = path.point(x, e, t)
    found = prediction(path, point.x_t, t, x - point.x_t, extra=extra)
    torch.testing.assert_close(found.noise, e, rtol=5e-3, atol=0)
    torch.testing.assert_close(found.data, x, rtol=0, atol=5e-2)


def test_z_exp_decides_whose_z_part_is_used():
    path = Path(VE(), D=1)
    t = torch.tensor([4.0, 6.0], dtype=torch.float64)
    x, e = normal(2, 1, 3, 3), normal(2, 1, 3, 3, seed=1)
    x_t = path.point(x, e, t).x_t
    network = prediction(path, x_t, t, x - x_t, z_exp=0.0).noise
    mixed = prediction(path, x_t, t, x - x_t, z_exp=5.0).noise
    formula = prediction(path, x_t, t, x - x_t, extra=False).noise
    assert torch.equal(mixed[1], network[1])
    torch.testing.assert_close(mixed[0], formula[0])
    assert not torch.allclose(mixed[0], network[0], rtol=1e-3)


def test_zero_output_has_finite_gradients():
    path = Path(VE(), D=1)
    t = torch.tensor([0.1, 10.0], dtype=torch.float64)
    output = torch.zeros(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    c = path.schedule.coefficients(t)
    conversion = PoissonFieldPrediction().conversion(c)
    found = Prediction(path, torch.ones(2, 1, 3, 3, dtype=torch.float64), output, conversion)
    found.velocity.square().sum().backward()
    assert torch.isfinite(output.grad).all()


def test_other_numbers_of_channels_are_refused():
    path = Path(VE(), D=1)
    t = torch.tensor([1.0], dtype=torch.float64)
    c = path.schedule.coefficients(t)
    conversion = PoissonFieldPrediction().conversion(c)
    with pytest.raises(ValueError, match="needs 1 or 2"):
        conversion.field(torch.zeros(1, 3, 2, 2), like=torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("bad", [{"gamma": 0.0}, {"z_exp": -1.0}, {"sigma_min": 0.0}])
def test_bad_arguments_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        PoissonFieldPrediction(**bad)
