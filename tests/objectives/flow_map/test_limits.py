"""Methods coincide where they must: full and half legs, short legs, MeanFlow and SplitMeanFlow."""

from itertools import pairwise

import pytest
import torch

from flowexp.objectives.flow_map import (
    JVP,
    AverageVelocity,
    CentralDifference,
    DataVelocity,
    FixedShare,
    OwnStep,
    OwnVelocity,
    RandomShare,
    Residual,
    Tangent,
)
from flowexp.paths import Linear, Path
from tests.objectives.flow_map.exact import GaussianMap
from tests.objectives.flow_map.rows import analytic, batch, compared, gradient, objective

SHORTER = (0.1, 0.05, 0.025, 0.0125)


def rates(errors):
    """By what an error shrinks when the leg is halved."""
    return [before / after for before, after in pairwise(errors)]


def test_half_an_own_leg_is_psd_m():
    """``u_tgt = (u(x_t, t, s) + u(x_s, s, r))/2`` with s in the middle; of random legs, at 1/2."""
    model, (pairs, times) = analytic(), batch(share=0.5)
    leap, comparison, _ = compared(objective(OwnStep(), FixedShare()), model, pairs, times)
    s = 0.5 * (leap.t + leap.r)
    first = model.average_velocity(leap.x_t, leap.t, s)
    second = model.average_velocity(model.flow_map(leap.x_t, leap.t, s), s, leap.r)
    torch.testing.assert_close(comparison.target, 0.5 * (first + second).detach())
    _, random, _ = compared(objective(OwnStep(), RandomShare()), model, pairs, times)
    torch.testing.assert_close(random.target, comparison.target)


def test_a_full_leg_is_trajectory_flow_matching():
    leap, comparison, _ = compared(
        objective(DataVelocity(), FixedShare(share=1.0)), analytic(), *batch()
    )
    assert torch.equal(comparison.target, leap.velocity)
    assert torch.equal(comparison.share, torch.ones_like(leap.t))


def apart(found, expected):
    return float((found - expected).detach().norm() / expected.detach().norm())


def residual_errors(model, driver, limit):
    """How far the residuals of ever shorter legs are from that of the derivative."""
    pairs, times = batch()
    expected = compared(objective(limit, Tangent()), model, pairs, times)[2]
    errors = []
    for a in SHORTER:
        matching = objective(driver, FixedShare(share=a), regressed=Residual())
        errors.append(apart(compared(matching, model, pairs, times)[2], expected))
    return errors


@pytest.mark.parametrize(
    ("driver", "limit"),
    [(DataVelocity(), DataVelocity()), (OwnStep(), OwnVelocity()), (OwnVelocity(), OwnVelocity())],
)
def test_the_residual_of_a_short_leg_tends_to_the_derivative_linearly(driver, limit):
    errors = residual_errors(analytic(), driver, limit)
    assert errors[-1] < 0.05
    assert rates(errors) == pytest.approx([2.0] * 3, abs=0.25)


def test_the_exact_velocity_field_leaves_a_residual_linear_in_the_leg():
    """``(u_tgt - u)/a -> 0`` for the exact u, whose own velocity drives."""
    model = GaussianMap(Path(Linear()), std=0.7)
    pairs, times = batch()
    sizes = []
    for a in SHORTER:
        matching = objective(OwnVelocity(), FixedShare(share=a), regressed=Residual())
        sizes.append(float(compared(matching, model, pairs, times)[2].norm()))
    assert sizes[-1] < 0.02
    assert rates(sizes) == pytest.approx([2.0] * 3, abs=0.25)


def test_the_gradient_of_splitmeanflow_tends_to_that_of_meanflow_linearly_in_the_split():
    """``|u - u_tgt|^2`` of a split a, over a, against MeanFlow's along the network's own velocity.

    Measured here: 0.10, 0.050, 0.025, 0.0126 for a = 0.1, 0.05, 0.025, 0.0125.
    """
    model, (pairs, times) = analytic(), batch()
    expected = compared(objective(OwnVelocity(), Tangent()), model, pairs, times)[2]
    meanflow = gradient(model, expected)
    errors = []
    for a in SHORTER:
        pairs, times = batch(share=a)
        matching = objective(OwnStep(), RandomShare(), regressed=AverageVelocity())
        split = gradient(model, compared(matching, model, pairs, times)[2]) / a
        errors.append(apart(split, meanflow))
    assert errors[-1] < 0.02
    assert rates(errors) == pytest.approx([2.0] * 3, abs=0.1)


def test_a_difference_agrees_with_forward_mode():
    """MeanFlow's target on the analytic network: the error is of order step^2."""
    exact, *found = (
        compared(objective(DataVelocity(), Tangent(derivative=how)), analytic(), *batch())[1]
        for how in (JVP(), CentralDifference(step=1e-3), CentralDifference(step=2e-3))
    )
    errors = [apart(comparison.target, exact.target) for comparison in found]
    assert errors[0] < 1e-5
    assert errors[1] / errors[0] == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("tangent", [(1, 0, 0), (1, 0, 1), (1, 1, 1)])
def test_wrong_tangents_give_other_targets(tangent):
    """In (x, t, r), MeanFlow's is (v, 1, 0): the published ablation has the three others."""
    model, (pairs, times) = analytic(), batch()
    leap, comparison, _ = compared(objective(DataVelocity(), Tangent()), model, pairs, times)

    def target(x, t, r):
        along = (x * leap.velocity, t * torch.ones_like(leap.t), r * torch.ones_like(leap.r))
        at = (leap.x_t, leap.t, leap.r)
        slope = JVP().along(model.average_velocity, at, along)[1]
        return (leap.velocity - (leap.t - leap.r)[:, None] * slope).detach()

    torch.testing.assert_close(target(1, 1, 0), comparison.target)
    assert apart(target(*tangent), comparison.target) > 0.05
