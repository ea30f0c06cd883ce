"""Lagrangian and Eulerian legs: exact maps, gradients with and without stops, rows with r = t."""

import pytest
import torch

from flowexp.objectives.flow_map import (
    CentralDifference,
    DataVelocity,
    Eulerian,
    FixedShare,
    Lagrangian,
    OnlineTarget,
    OwnStep,
    OwnVelocity,
    RandomShare,
    Tangent,
    TeacherVelocity,
)
from flowexp.paths import Linear, Path, Trigonometric
from tests.goldens.flow_maps_network import GoldenFlowMap
from tests.objectives.flow_map.exact import GaussianMap
from tests.objectives.flow_map.rows import analytic, batch, compared, gradient, objective

OFF, ON = OnlineTarget(), OnlineTarget(gradient=True)


@pytest.mark.parametrize("schedule", [Linear(), Trigonometric()])
@pytest.mark.parametrize(
    ("driver", "leg"),
    [
        (OwnVelocity, Lagrangian()),
        (OwnVelocity, Eulerian()),
        (OwnVelocity, Tangent()),
        (OwnStep, FixedShare(share=0.5)),
        (OwnStep, RandomShare()),
    ],
)
def test_the_exact_flow_map_has_no_loss(schedule, driver, leg):
    model = GaussianMap(Path(schedule), mean=[0.3, -0.2, 0.0], std=0.6)
    matching = objective(driver(), leg, diagonal=TeacherVelocity(teacher=model))
    pairs, times = batch(diagonal=3)
    _, comparison, difference = compared(matching, model, pairs, times)
    assert comparison.prediction.abs().max() > 0.1
    assert difference.abs().max() < 1e-9


def derivative(u, at, step=1e-5):
    """A central difference of second order, with gradient."""
    return (u(at + step) - u(at - step)) / (2.0 * step)


def lagrange(model, x, t, r, *, target):
    gap = (t - r)[:, None]
    u = model.average_velocity(x, t, r)
    prediction = u - gap * derivative(lambda r: model.average_velocity(x, t, r), r)
    end = x - gap * u
    velocity = model.average_velocity(end if target else end.detach(), r, r)
    return prediction - (velocity if target else velocity.detach())


def euler(model, x, t, r, *, driver, target):
    d = model.average_velocity(x, t, t)
    d = d if driver else d.detach()
    gap, step = (t - r)[:, None], 1e-5
    dt = derivative(lambda t: model.average_velocity(x, t, r), t)
    ahead, behind = (model.average_velocity(x + sign * step * d, t, r) for sign in (1.0, -1.0))
    advection = d - gap * (ahead - behind) / (2.0 * step)
    prediction = model.average_velocity(x, t, r) + gap * dt
    return prediction - (advection if target else advection.detach())


def split(model, x, t, r, *, target):
    s = 0.5 * (t + r)
    first = model.average_velocity(x, t, s)
    second = model.average_velocity(x - (t - s)[:, None] * first, s, r)
    goal = 0.5 * (first + second)
    return model.average_velocity(x, t, r) - (goal if target else goal.detach())


VARIANTS = {
    "LSD, convex": (DataVelocity(), Lagrangian(), OFF, lagrange, {"target": False}),
    "LSD, none": (DataVelocity(), Lagrangian(), ON, lagrange, {"target": True}),
    "ESD, full": (
        OwnVelocity(target=OFF),
        Eulerian(),
        OFF,
        euler,
        {"driver": False, "target": False},
    ),
    "ESD, convex": (
        OwnVelocity(target=OFF),
        Eulerian(),
        ON,
        euler,
        {"driver": False, "target": True},
    ),
    "ESD, none": (OwnVelocity(target=ON), Eulerian(), ON, euler, {"driver": True, "target": True}),
    "PSD, convex": (OwnStep(target=OFF), FixedShare(), OFF, split, {"target": False}),
    "PSD, none": (OwnStep(target=ON), FixedShare(), ON, split, {"target": True}),
}


@pytest.mark.parametrize("schedule", [Linear(), Trigonometric()])
@pytest.mark.parametrize("variant", VARIANTS)
def test_values_and_gradients_are_those_of_the_written_out_residual(variant, schedule):
    """Against difference quotients of the analytic network, whose error is 1e-9 relative."""
    driver, leg, target, residual, stops = VARIANTS[variant]
    model = analytic(schedule)
    pairs, times = batch()
    leap, _, difference = compared(objective(driver, leg, target=target), model, pairs, times)
    expected = residual(model, leap.x_t, leap.t, leap.r, **stops)
    torch.testing.assert_close(difference, expected, rtol=1e-7, atol=1e-7)
    ours, theirs = gradient(model, difference), gradient(model, expected)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_every_stop_changes_the_gradient_and_none_the_value():
    gradients, values = [], []
    for name in ("ESD, full", "ESD, convex", "ESD, none"):
        driver, leg, target, *_ = VARIANTS[name]
        model = analytic()
        _, _, difference = compared(objective(driver, leg, target=target), model, *batch())
        values.append(difference.detach())
        gradients.append(gradient(model, difference))
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])
    full, convex, none = gradients
    assert min((full - convex).norm(), (convex - none).norm(), (full - none).norm()) > 0.1


@pytest.mark.parametrize(
    ("driver", "leg"),
    [(DataVelocity(), Lagrangian()), (OwnVelocity(), Eulerian()), (OwnStep(), FixedShare())],
)
def test_targets_have_no_gradient_unless_it_is_asked_for(driver, leg):
    _, comparison, _ = compared(objective(driver, leg), analytic(), *batch(diagonal=2))
    assert comparison.prediction.requires_grad
    assert not comparison.target.requires_grad
    _, comparison, _ = compared(objective(driver, leg, target=ON), analytic(), *batch(diagonal=2))
    assert comparison.target.requires_grad


@pytest.mark.parametrize("leg", [Lagrangian, Eulerian])
def test_the_gradient_can_be_kept_out_of_the_derivative(leg):
    """Then it is that of u alone: the slope is a number that is added."""
    pairs, times = batch()
    model = analytic()
    matching = objective(OwnVelocity(), leg(through_derivative=False))
    leap, comparison, difference = compared(matching, model, pairs, times)
    u = model.average_velocity(leap.x_t, leap.t, leap.r)
    alike = u + (comparison.prediction - u).detach() - comparison.target
    stopped = gradient(model, difference)
    torch.testing.assert_close(stopped, gradient(model, alike))
    _, _, through = compared(objective(OwnVelocity(), leg()), model, pairs, times)
    assert torch.equal(through, difference)
    assert (gradient(model, through) - stopped).norm() > 0.1


@pytest.mark.parametrize("leg", [Lagrangian, Eulerian])
def test_a_difference_serves_as_well_as_forward_mode(leg):
    found = [
        compared(objective(OwnVelocity(), leg(derivative=how)), analytic(), *batch())[2]
        for how in (None, CentralDifference(step=1e-4))
    ]
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("leg", [Lagrangian(), Eulerian()])
def test_rows_keep_their_places_when_some_have_r_equal_to_t(leg):
    """Every row has what it has in a batch of its own kind."""
    (pairs, times), model = batch(diagonal=3), analytic()
    order = torch.tensor([5, 0, 3, 1, 7, 2, 4, 6])
    leap, comparison, _ = compared(objective(OwnVelocity(), leg), model, pairs, times)
    mixed = type(pairs)(x=pairs.x[order], e=pairs.e[order], conditions={})
    _, moved, _ = compared(objective(OwnVelocity(), leg), model, mixed, times[order])
    for name in ("prediction", "target", "share"):
        expected = getattr(comparison, name)[order]
        torch.testing.assert_close(getattr(moved, name), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(comparison.target[:3], leap.velocity[:3])


class Bounded(GoldenFlowMap):
    """Refuses times outside ``0 <= r <= t <= 1``."""

    def average_velocity(self, x_t, t, r, **conditions):
        assert bool(((r >= 0.0) & (r <= t) & (t <= 1.0)).all())
        return super().average_velocity(x_t, t, r, **conditions)


@pytest.mark.parametrize("leg", [Lagrangian, Eulerian])
def test_a_difference_ends_where_the_times_do(leg):
    """At t = 1, r = 0 and at gaps below the step it is one-sided, with the error of its step."""
    (pairs, times), g = batch(), analytic()
    times[0], times[1], times[2, 1] = torch.tensor([1.0, 0.5]), torch.tensor([0.5, 0.0]), 0.0
    times[3, 1] = times[3, 0] - 1e-4
    weights = {name: value.detach().numpy() for name, value in g.parameters.items()}
    found = [
        compared(objective(OwnVelocity(), leg(derivative=how)), model, pairs, times)[2]
        for how, model in ((None, g), (CentralDifference(step=1e-3), Bounded(weights, path=g.path)))
    ]
    torch.testing.assert_close(found[1], found[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("leg", [Lagrangian(), Eulerian()])
def test_a_velocity_head_is_refused(leg):
    with pytest.raises(ValueError, match=r"head_weight is 1.0; expected 0 with \w+, which"):
        objective(DataVelocity(), leg, head_weight=1.0)
