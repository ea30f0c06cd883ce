"""The distance from the exact sample, against closed forms and orders of convergence."""

import pytest
import torch

from flowexp.diagnostics import SolverError
from flowexp.errors import UsageError
from flowexp.paths import VE, Linear, Path
from flowexp.samplers import DDIM, Churn, Euler, Heun, StateNoise, Uniform
from tests.diagnostics.fields import DataModel, FieldModel, draws, measure, setting
from tests.samplers.closed_forms import GaussianModel

GROWTH = 0.7


def growing():
    """v = k x: from e at t = 1 the exact sample is exp(-k) e."""
    return FieldModel(lambda x, t: GROWTH * x)


def test_of_eulers_method_in_closed_form():
    model, steps = growing(), 4
    record = measure(SolverError(rtol=1e-9, atol=1e-9), model, sampler=euler(steps))
    exact = torch.exp(torch.tensor(-GROWTH, dtype=torch.float64))
    size = draws(model).to(torch.float64).square().mean(1).sqrt().mean()
    expected = float(abs((1.0 - GROWTH / steps) ** steps - exact) * size)
    assert record.value == pytest.approx(expected, rel=1e-4)
    assert record.extra["size"] == pytest.approx(float(exact * size), rel=1e-6)
    assert record.extra["standard_error"] > 0.0


def euler(steps):
    return Euler(steps=steps, time_grid=Uniform())


def heun(steps):
    return Heun(steps=steps, time_grid=Uniform())


@pytest.mark.parametrize(("method", "order"), [(euler, 1), (heun, 2)])
def test_falls_with_the_order_of_the_method(method, order):
    metric = SolverError(rtol=1e-10, atol=1e-10)
    model = GaussianModel(
        Path(Linear()), mean=torch.full((1, 2), 0.3, dtype=torch.float64), std=0.5
    )
    coarse, fine = (measure(metric, model, sampler=method(n)).value for n in (32, 64))
    assert coarse / fine == pytest.approx(2**order, rel=0.25)


def test_first_order_trajectories_are_solved_in_one_step():
    x = torch.tensor([[0.7, -0.2]], dtype=torch.float64)
    model = DataModel(Path(VE(t_min=0.01, t_max=20.0)), x)
    sampler = DDIM(steps=1, time_grid=Uniform())
    assert measure(SolverError(), model, sampler=sampler).value < 1e-4


def test_against_a_teacher_it_counts_what_the_student_does_wrong():
    teacher, student = growing(), FieldModel(lambda x, t: 0.5 * x)
    metric = SolverError(reference=teacher, rtol=1e-9, atol=1e-9)
    record = measure(metric, student, sampler=heun(200))
    size = float(draws(student).to(torch.float64).square().mean(1).sqrt().mean())
    k = torch.tensor([-0.5, -GROWTH], dtype=torch.float64).exp()
    assert record.value == pytest.approx(float(k[0] - k[1]) * size, rel=1e-4)
    assert "the ODE of" in record.protocol.extractor


def test_noise_and_other_paths_are_refused():
    noisy = Euler(steps=4, time_grid=Uniform(), perturbation=StateNoise(scale=0.1))
    churned = Euler(steps=4, time_grid=Uniform(), perturbation=Churn(S_churn=1.0))
    for sampler in (noisy, churned, DDIM(steps=4, time_grid=Uniform(), eta=1.0)):
        with pytest.raises(UsageError, match=f"{type(sampler).__name__} adds noise"):
            SolverError().check_setting(growing(), setting=setting(growing(), sampler=sampler))
    other = GaussianModel(Path(VE()), mean=torch.zeros(1, 2), std=1.0)
    with pytest.raises(UsageError, match="VE") as refused:
        SolverError(reference=other).check_setting(growing(), setting=setting(growing()))
    assert refused.value.key == "metric.solver_error.reference.run"
    with pytest.raises(ValueError, match="rtol is 0"):
        SolverError(rtol=0.0)
