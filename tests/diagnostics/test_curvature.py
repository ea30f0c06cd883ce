"""Total curvature against curves whose turning is known."""

import math

import pytest
import torch

from flowexp.diagnostics import Curvature, Straightness
from flowexp.paths import VE, Linear, Path
from tests.diagnostics.fields import FieldModel, measure
from tests.samplers.closed_forms import GaussianModel, MixtureModel


def test_a_velocity_that_rotates_turns_by_its_angle():
    """v = (cos wt, sin wt): the n directions of the polygon turn by w (n - 1)/n."""
    omega, n = 2.5, 50
    model = FieldModel(
        lambda x, t: torch.stack([torch.cos(omega * t), torch.sin(omega * t)]).expand_as(x)
    )
    record = measure(Curvature(steps=n), model)
    assert record.value == pytest.approx(omega * (n - 1) / n, rel=1e-12)
    assert record.extra["standard_error"] == pytest.approx(0.0, abs=1e-12)
    chord = 2.0 * math.sin(omega / 2.0) / omega
    assert record.extra["velocity_variation"] == pytest.approx(omega / chord, rel=0.03)


def test_a_straight_line_at_changing_speed_has_none():
    c = torch.tensor([3.0, -4.0], dtype=torch.float64)
    model = FieldModel(lambda x, t: ((1.0 + t) * c).expand_as(x))
    record = measure(Curvature(steps=100), model)
    assert abs(record.value) < 1e-13
    assert record.extra["velocity_variation"] == pytest.approx(1.0 / 1.5, rel=0.02)
    assert measure(Straightness(steps=100), model).value > 0.5


def test_turning_back_is_half_a_turn_and_standing_still_is_none():
    c = torch.tensor([1.0, 0.0], dtype=torch.float64)
    back = FieldModel(lambda x, t: torch.where(t > 0.3, c, -c).expand_as(x))
    assert measure(Curvature(steps=10), back).value == pytest.approx(math.pi, rel=1e-12)
    still = FieldModel(lambda x, t: torch.where(t > 0.3, c, 0.0 * c).expand_as(x))
    assert measure(Curvature(steps=10), still).value == 0.0


def test_small_angles_are_not_rounded_away():
    omega, n = 1e-9, 10
    model = FieldModel(
        lambda x, t: torch.stack([torch.cos(omega * t), torch.sin(omega * t)]).expand_as(x)
    )
    assert measure(Curvature(steps=n), model).value == pytest.approx(0.9 * omega, rel=1e-5)


def test_isotropic_gaussian_data_flow_along_rays_and_turn_back_once():
    """z = sqrt(q) e with q = ((1-t) s)^2 + t^2, which has one minimum, at t = s^2/(1 + s^2)."""
    mean = torch.zeros(1, 2, dtype=torch.float64)
    model = GaussianModel(Path(Linear()), mean=mean, std=2.0)
    assert measure(Curvature(steps=60), model).value == pytest.approx(math.pi, rel=1e-9)


def test_one_model_on_two_paths_turns_as_much():
    law = [0.4, 0.6], [[1.5, 0.0], [-0.5, 1.0]], [[0.2, 0.2], [0.1, 0.1]]
    values = [
        measure(
            Curvature(steps=400),
            MixtureModel(Path(schedule), *law),
            seeds=range(64),
            batch_size=64,
        ).value
        for schedule in (Linear(), VE(t_min=1e-4, t_max=2000.0))
    ]
    assert values[0] > 0.2
    assert values[1] == pytest.approx(values[0], rel=0.01)
