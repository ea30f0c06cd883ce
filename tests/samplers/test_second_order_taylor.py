"""RF-Solver and FireFlow: what they equal, their orders, their calls, their round trips."""

import math

import pytest
import torch

from flowexp.models import Model
from flowexp.paths import VE, VP, Linear, Path, Prediction
from flowexp.samplers import (
    EDMGrid,
    FireFlow,
    Given,
    Inversion,
    Midpoint,
    NoiseToSignal,
    RFSolver,
    Shifted,
    TokenShifted,
    Uniform,
)
from tests.samplers.closed_forms import GaussianModel, MixtureModel

MIXTURE = ([0.4, 0.6], [[0.5, -0.3], [-0.7, 0.2]], [[0.3, 0.2], [0.25, 0.4]])
E = torch.tensor([[1.0, -0.5], [-1.2, 0.8], [0.1, 0.3]], dtype=torch.float64)


def mixture(schedule=None):
    return MixtureModel(Path(schedule or Linear()), *MIXTURE)


class Affine(Model):
    """``v = a + b t``, the same everywhere in space."""

    def __init__(self):
        self.path = Path(Linear())
        self.time_range = (0.0, 1.0)

    def predict(self, x_t, t, **conditions):
        velocity = (0.7 - 1.3 * t) * torch.ones_like(x_t)
        return Prediction.of_velocity(self.path, x_t, t, velocity)


@pytest.mark.parametrize("schedule", [Linear(), VP(), VE()], ids=["linear", "vp", "ve"])
@pytest.mark.parametrize("variable", [None, NoiseToSignal()], ids=["time", "nsr"])
def test_with_half_a_step_it_is_the_midpoint_rule_to_the_last_bit(schedule, variable):
    options = {"steps": 7, "time_grid": EDMGrid(sigma_max=8.0), "variable": variable}
    ours = RFSolver(**options).sample(mixture(schedule), E)
    theirs = Midpoint(**options).sample(mixture(schedule), E)
    assert torch.equal(ours.x, theirs.x)
    assert torch.equal(ours.nfe, theirs.nfe)


@pytest.mark.parametrize("fd_step", [None, 0.01, 0.4])
def test_exact_for_velocities_affine_in_time(fd_step):
    sampler = RFSolver(steps=3, time_grid=Shifted(), fd_step=fd_step)
    torch.testing.assert_close(sampler.sample(Affine(), E).x, E - 0.7 + 0.65, rtol=0, atol=1e-13)


def one_step_error(h, **options):
    """Error of one step of length h from t = 0.8."""
    mean = torch.tensor([[0.4, -0.3]], dtype=torch.float64)
    model = GaussianModel(Path(VP()), mean=mean, std=0.5)
    grid = Given(values=[0.8, 0.8 - h])
    start = model.path.start(E, torch.tensor(0.8, dtype=torch.float64))
    found = RFSolver(steps=1, time_grid=grid, **options).sample(model, E).x
    return float((found - model.exact(start, 0.8, 0.8 - h)).abs().max())


# The finite difference's own error is of the order of the step, unless it shrinks with h.
@pytest.mark.parametrize(("fd_step", "order"), [(None, 3.0), (1e-5, 3.0)])
def test_local_order(fd_step, order):
    errors = [one_step_error(h, fd_step=fd_step) for h in (0.1, 0.05)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(
    ("solver", "order"),
    [(RFSolver, 2), (lambda **k: RFSolver(fd_step=1e-6, **k), 2), (FireFlow, 2)],
    ids=["rf_solver", "paper", "fireflow"],
)
def test_global_order(solver, order):
    def error(steps):
        found = solver(steps=steps, time_grid=Uniform()).sample(mixture(), E).x
        return float((found - reference).abs().max())

    reference = Midpoint(steps=4000, time_grid=Uniform()).sample(mixture(), E).x
    assert math.log2(error(40) / error(80)) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("solver", [RFSolver, FireFlow])
def test_the_error_of_the_round_trip_falls_with_the_third_power_of_the_step(solver):
    """The leading error of a second-order step is odd in h: there and back it cancels."""

    def error(steps):
        sampler = solver(steps=steps, time_grid=Uniform())
        e = Inversion(sampler).invert(mixture(), E)
        return float((sampler.sample(mixture(), e.x).x - E).abs().max())

    assert error(80) / error(160) == pytest.approx(8.0, abs=0.5)


def test_the_second_evaluation_stays_within_its_step_and_in_the_direction_of_travel():
    model = mixture()
    sampler = RFSolver(steps=2, time_grid=Given(values=[1.0, 0.995, 0.0]), fd_step=0.01)
    sampler.sample(model, E)
    assert [float(t) for t in model.times] == pytest.approx([1.0, 0.995, 0.995, 0.985])
    model = mixture()
    Inversion(sampler).invert(model, E)
    assert [float(t) for t in model.times] == pytest.approx([0.0, 0.01, 0.995, 1.0])


def test_calls():
    """2 N for RF-Solver, N + 1 for FireFlow; a step to where the model ends is Euler's, 1."""
    assert RFSolver(steps=5, time_grid=Uniform()).sample(mixture(), E).nfe.tolist() == [10] * 3
    model = mixture()
    FireFlow(steps=4, time_grid=Uniform()).sample(model, E)
    assert [float(t) for t in model.times] == [1.0, 0.875, 0.625, 0.375, 0.125]
    high = MixtureModel(Path(Linear()), *MIXTURE, time_range=(0.2, 1.0))
    for solver, times in (
        (RFSolver, [1.0, 0.6, 0.2]),
        (FireFlow, [1.0, 0.6, 0.2]),
    ):
        high.times.clear()
        grid = Given(values=[1.0, 0.2, 0.0])
        found = solver(steps=2, time_grid=grid).sample(high, E)
        assert [float(t) for t in high.times] == pytest.approx(times)
        assert torch.isfinite(found.x).all()


def test_fireflow_is_one_midpoint_step_and_then_reuses_slopes():
    one = {"steps": 1, "time_grid": Uniform()}
    a, b = FireFlow(**one).sample(mixture(), E).x, Midpoint(**one).sample(mixture(), E).x
    assert torch.equal(a, b)
    two = {"steps": 2, "time_grid": Uniform()}
    model = mixture()
    half = torch.tensor(0.5, dtype=torch.float64)
    first = model.velocity(E - 0.25 * model.velocity(E, 2 * half), half * 1.5)
    z = E - 0.5 * first
    expected = z - 0.5 * model.velocity(z - 0.25 * first, half / 2)
    torch.testing.assert_close(FireFlow(**two).sample(mixture(), E).x, expected)


@pytest.mark.parametrize("fd_step", [0.0, -0.1, math.inf, math.nan])
def test_refuses(fd_step):
    with pytest.raises(ValueError, match=f"fd_step is {fd_step}"):
        RFSolver(steps=2, time_grid=Uniform(), fd_step=fd_step)


def test_token_shifted_grid():
    """mu is linear in the tokens: 0.5 at 256, 1.15 at 4096; t = e^mu / (e^mu + 1/u - 1)."""
    u = torch.linspace(1.0, 0.0, 6, dtype=torch.float64)[1:-1]
    for tokens, mu in ((256, 0.5), (4096, 1.15), (1024, 0.63)):
        grid = TokenShifted(tokens=tokens).times(mixture(), 5)
        torch.testing.assert_close(grid[1:-1], math.exp(mu) / (math.exp(mu) + 1.0 / u - 1.0))
        assert grid[[0, -1]].tolist() == [1.0, 0.0]
    flat = TokenShifted(tokens=9, mu_low=0.0, mu_high=0.0).times(mixture(), 5)
    torch.testing.assert_close(flat, Uniform().times(mixture(), 5))
    with pytest.raises(ValueError, match="tokens=0"):
        TokenShifted(tokens=0)
    with pytest.raises(ValueError, match="tokens_high=256"):
        TokenShifted(tokens=9, tokens_high=256)
